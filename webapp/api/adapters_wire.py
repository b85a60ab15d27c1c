"""An imported adapter as it is on the wire."""

from typing import Any

from django.http import HttpRequest

from webapp.adapters.importing import Imported
from webapp.api.names import adapter_name, base_names, ready_bases
from webapp.api.wire import timestamp


def adapter_object(made: Imported, request: HttpRequest) -> dict[str, Any]:
    """`id` is its model name: what the other calls take, and the command line."""
    adapter = made.adapter
    lora = adapter.spec.get("lora", {})
    targets = lora.get("target_modules", [])
    return {
        "id": adapter_name(adapter),
        "object": "adapter",
        "created_at": timestamp(adapter.created_at),
        "name": adapter.name,
        "base_model": base_names(ready_bases()).get(adapter.base_model_id, adapter.base_model.name),
        "bytes": adapter.size,
        "weights_sha256": adapter.weights_sha256,
        "r": lora.get("r"),
        "lora_alpha": lora.get("lora_alpha"),
        "target_modules": [targets] if isinstance(targets, str) else targets,
        "imported_from": adapter.imported_from,
        "is_new": made.is_new,
        "url": request.build_absolute_uri(adapter.get_absolute_url()),
    }
