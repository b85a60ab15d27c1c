"""The rules of DESIGN: who may import whom, how large things are, and what must not stand in the code at all.

A rule that fails says where, what and how to mend it. An exception is a line in one of the tables, with its reason.
"""

import ast
import subprocess
import sys
from collections import defaultdict

import pytest

from tests import source
from webapp.common.errors import CATALOGUE

# Which apps an app may import besides itself. Everything may be imported by api and system.
LADDER = {
    "common": set(),
    "accounts": {"common"},
    "datasets": {"common", "accounts"},
    "adapters": {"common", "accounts", "datasets"},
    "jobs": {"common", "accounts", "datasets", "adapters"},
    "chat": {"common", "accounts", "datasets", "adapters"},
}
# Inside an app: a module imports only modules of a lower rank, or of its own.
RANKS = {"urls": 7, "views": 6, "forms": 5, "services": 5, "tasks": 4, "lifecycle": 3, "models": 1}
HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
BORDER = ("auto_dtype", "base_source", "base_parts", "spec", "lora_names", "events", "errors", "presets", "estimate")
BORDER += ("rendering", "formats")

# Imports inside a function, each with the reason why it cannot stand at the top.
DOORS = {
    "webapp/chat/engine_door.py": "the chat worker's door to the engine: the only way to torch from the web project"
}
CATCH_ALL = {
    "trainer/__main__.py": "the trainer's main: any failure becomes a Failed event",
    "webapp/jobs/tasks.py": "the task border",
    "webapp/common/task_border.py": "the task border of the default worker",
    "webapp/system/scheduler.py": "the task border of what the scheduler does by itself",
    "webapp/api/border.py": "the border of the API: any failure becomes an answer in the wire's shape",
    "webapp/chat/answering.py": "the stream: readers of an answer must hear that it broke off",
    "webapp/chat/call_answering.py": "the same, for who asks over the API",
}
REDIS = {
    "webapp/common/streams.py": "live streams",
    "webapp/common/cache.py": "the cache",
    "webapp/system/valkey.py": "starts the embedded server and waits until it answers",
}
LONG_FUNCTIONS = {("trainer/sft.py", "train"): 120}  # the one visible training loop

CODE = ("webapp", "trainer", "lowrank", "tests", "benchmarks")
FUNCTION_LINES, DOOR_LINES, FILE_LINES, PAGE_LINES, FRAGMENT_LINES, SCRIPT_LINES = 60, 25, 400, 120, 40, 200
OWNED = {"Dataset", "DatasetVersion", "Adapter", "Share", "Job", "Attempt", "JobEvent", "Conversation", "Turn"}
ACCESSORS = {"visible_to", "usable_in"}  # what gives rows to a view: of a user, or of the team worked in
OWNED |= {"Completion", "Team", "Membership", "Invitation", "ApiKey", "AuditEntry", "User"}


def check(problems: list[str]) -> None:
    assert not problems, "\n" + "\n".join(sorted(problems))


def app_of(module: str) -> str:
    """`jobs` of webapp.jobs.models; empty for settings, urls and the like."""
    parts = module.split(".")
    return parts[1] if parts[0] == "webapp" and len(parts) > 1 and (source.ROOT / "webapp" / parts[1]).is_dir() else ""


def view_files() -> list[str]:
    """views.py, and the modules whose functions an urls.py names."""
    names = {source.module_of(file) for file in source.python_files("webapp")}
    named = {
        target
        for file in source.own("webapp/**/urls.py")
        for one in source.imports(file)
        for target in one.targets
        if target in names and not target.endswith("urls") and not source.is_in(target, "webapp.common")
    }
    return sorted(
        f"{name.replace('.', '/')}.py" for name in named if (source.ROOT / f"{name.replace('.', '/')}.py").is_file()
    )


def test_apps_import_only_what_lies_below_them() -> None:
    problems = []
    for file in source.python_files("webapp"):
        app = app_of(source.module_of(file))
        for one in source.imports(file):
            other = app_of(one.module) or app_of(f"{one.module}.{one.name}")
            if app in LADDER and other and other != app and other not in LADDER[app]:
                allowed = ", ".join(sorted(LADDER[app])) or "nothing"
                problems.append(
                    f"{one.place}: {app} imports {one.module}, but may use only {allowed}. "
                    f"Move what is needed down, or turn the call round."
                )
            if app and one.module.split(".")[:2] in (["webapp", "urls"], ["webapp", "settings"]):
                problems.append(f"{one.place}: an app imports {one.module}. Use django.conf.settings or reverse().")
    check(problems)


def test_modules_of_an_app_import_downwards() -> None:
    doors = view_files()
    problems = []
    for file in source.python_files("webapp"):
        rank = RANKS["views"] if file in doors else RANKS.get(file.split("/")[-1].removesuffix(".py"))
        app = app_of(source.module_of(file))
        for one in source.imports(file):
            targets = [target for target in one.targets if app_of(target)]
            highest = max(
                (RANKS.get(target.split(".")[2], 0) for target in targets if target.count(".") == 2), default=0
            )
            same_app = app in {app_of(target) for target in targets}
            if rank is not None and highest > rank and same_app:
                problems.append(
                    f"{one.place}: a module of rank {rank} imports {one.module} {one.name} of rank {highest}. "
                    f"The order is urls, views, forms and services, tasks, lifecycle, models."
                )
            if highest >= RANKS["views"] and not same_app and file != "webapp/urls.py":
                problems.append(f"{one.place}: imports the views of another app. Call its services.")
    check(problems)


def test_the_trainer_knows_nothing_of_the_web() -> None:
    problems = []
    for file in source.python_files("trainer"):
        for one in source.imports(file):
            if one.module.split(".")[0] in ("django", "celery", "redis", "webapp", "kombu"):
                problems.append(f"{one.place}: the trainer imports {one.module}. It runs without any of it.")
    check(problems)


def test_the_client_needs_python_and_yaml_alone() -> None:
    allowed = {"lowrank", "yaml", *sys.stdlib_module_names}
    problems = []
    for file in source.python_files("lowrank"):
        for one in source.imports(file):
            if one.module.split(".")[0] not in allowed:
                problems.append(f"{one.place}: the command line client imports {one.module}. It runs without it.")
    check(problems)


def test_the_web_takes_only_the_border_modules_of_the_trainer() -> None:
    problems = []
    for file in source.python_files("webapp"):
        for one in source.imports(file):
            if not source.is_in(one.module, "trainer"):
                continue
            name = (one.module.split(".") + [one.name])[1]
            if name not in BORDER and file not in DOORS:
                problems.append(f"{one.place}: imports trainer.{name}. The web may import {', '.join(BORDER)}.")
    check(problems)


def test_the_border_modules_never_reach_torch() -> None:
    """Followed through everything they import, so that no detour loads it either."""
    by_module = {source.module_of(file): file for file in source.python_files("trainer")}
    todo = [module for module in by_module if len(module.split(".")) > 1 and module.split(".")[1] in BORDER]
    reached_from = {module: module for module in todo}
    problems = []
    while todo:
        module = todo.pop()
        for one in source.imports(by_module[module]):
            if one.module.split(".")[0] in HEAVY:
                problems.append(
                    f"{one.place}: {one.module} is loaded by trainer's border through {reached_from[module]}."
                )
            for target in one.targets:
                if target in by_module and target not in reached_from:
                    reached_from[target] = f"{reached_from[module]} -> {target}"
                    todo.append(target)
    check(problems)


def test_a_fresh_python_loads_the_whole_web_project_without_torch() -> None:
    modules = [
        source.module_of(file) for file in source.python_files("webapp") if not file.endswith("webapp/settings.py")
    ]
    program = (
        "import sys, django, importlib\n"
        "django.setup()\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "from django.urls import get_resolver\n"
        "assert get_resolver().url_patterns\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", f"import os; os.environ['DJANGO_SETTINGS_MODULE']='tests.settings'\n{program}"]
    done = subprocess.run(command, cwd=source.ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]", (
        f"{done.stdout.strip()} are loaded by the web project; see which import leads there."
    )


def test_imports_stand_at_the_top() -> None:
    problems = []
    for file in source.python_files():
        for one in source.imports(file):
            if one.inside_function and file not in DOORS:
                problems.append(
                    f"{one.place}: imports {one.module} inside a function. Put it at the top, or mend the cycle."
                )
    check(problems)


def test_functions_are_short() -> None:
    doors = {*view_files(), *source.own("webapp/*/tasks.py")}
    problems = []
    for file in source.python_files():
        for function in source.functions(file):
            usual = DOOR_LINES if file in doors else FUNCTION_LINES
            limit = LONG_FUNCTIONS.get((file, function.name), usual)
            if (lines := source.lines_of(function)) > limit:
                what = "A door calls plain functions" if file in doors else "Split it along its steps"
                problems.append(
                    f"{file}:{function.lineno}: {function.name} has {lines} lines, more than {limit}. {what}."
                )
    check(problems)


@pytest.mark.parametrize(
    ("patterns", "limit"),
    [
        (
            (
                "webapp/**/*.py",
                "trainer/**/*.py",
                "lowrank/**/*.py",
                "tests/**/*.py",
                "benchmarks/**/*.py",
                "manage.py",
            ),
            FILE_LINES,
        ),
        (("templates/**/[!_]*.html",), PAGE_LINES),
        (("templates/**/_*.html",), FRAGMENT_LINES),
        (("static/js/**/*.js",), SCRIPT_LINES),
    ],
)
def test_files_are_short(patterns: tuple[str, ...], limit: int) -> None:
    long = {file: source.text(file).count("\n") for file in source.own(*patterns)}
    check(
        [
            f"{file} has {n} lines, more than {limit}. Split it by what its parts are about."
            for file, n in long.items()
            if n > limit
        ]
    )


def test_catching_everything_is_for_the_three_borders() -> None:
    problems, borders = [], set()
    for file in source.python_files():
        for node in ast.walk(source.tree(file)):
            if isinstance(node, ast.ExceptHandler):
                caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
                if any(one is None or source.dotted(one) in ("Exception", "BaseException") for one in caught):
                    borders.add(file)
                    if file not in CATCH_ALL:
                        problems.append(f"{file}:{node.lineno}: catches everything. Name what can go wrong.")
    problems += [f"{file}: listed as a border, but lets everything through." for file in set(CATCH_ALL) - borders]
    check(problems)


def test_nothing_runs_code_from_data() -> None:
    banned_calls = {"eval", "exec", "compile", "__import__", "torch.load", "os.system", "os.popen", "yaml.load"}
    banned_modules = {"pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
    problems = []
    for file in source.python_files("webapp", "trainer", "lowrank", "benchmarks"):
        problems += [
            f"{one.place}: imports {one.module}. Use JSON or safetensors."
            for one in source.imports(file)
            if one.module.split(".")[0] in banned_modules or (one.module, one.name) == ("torch", "load")
        ]
        for name, call in source.calls(file):
            if name in banned_calls:
                problems.append(f"{file}:{call.lineno}: calls {name}, which can run what a file says.")
            for keyword in call.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else "unknown"
                if keyword.arg in ("shell", "trust_remote_code") and value is not False:
                    problems.append(f"{file}:{call.lineno}: passes {keyword.arg}. Leave it out.")
    check(problems)


def test_no_django_signals_and_no_save_overrides() -> None:
    problems = []
    for file in source.python_files("webapp"):
        for one in source.imports(file):
            if source.is_in(one.module, "django.dispatch") or (
                one.module.startswith("django.") and "signals" in one.targets[1]
            ):
                problems.append(f"{one.place}: uses Django's signals. Call a service where the thing happens.")
        if file.endswith("models.py"):
            for function in source.functions(file):
                if function.name in ("save", "delete"):
                    problems.append(f"{file}:{function.lineno}: overrides {function.name}(). Write a service.")
    check(problems)


def test_every_user_error_is_in_the_catalogue_and_used() -> None:
    used: dict[str, list[str]] = defaultdict(list)
    problems = []
    for file in source.python_files("webapp"):
        for name, call in source.calls(file):
            if name.split(".")[-1] != "UserError":
                continue
            if not call.args or not isinstance(call.args[0], ast.Constant):
                problems.append(f"{file}:{call.lineno}: UserError needs its code written out as text.")
            else:
                used[call.args[0].value].append(f"{file}:{call.lineno}")
    problems += [
        f"{places[0]}: no code {code!r} in webapp/common/errors.py."
        for code, places in used.items()
        if code not in CATALOGUE
    ]
    problems += [
        f"webapp/common/errors.py: {code!r} is raised nowhere. Remove it." for code in CATALOGUE if code not in used
    ]
    check(problems)


def test_streams_and_redis_have_one_home() -> None:
    problems = []
    for file in source.python_files("webapp"):
        for one in source.imports(file):
            if one.name == "StreamingHttpResponse" and file != "webapp/common/http.py":
                problems.append(f"{one.place}: makes its own stream. Use sse_response() or a function beside it.")
            if one.module.split(".")[0] == "redis" and file not in REDIS:
                problems.append(f"{one.place}: talks to Redis. Use webapp.common.streams.")
    check(problems)


def test_views_ask_for_objects_as_this_user() -> None:
    """In the view itself; functions it calls get what it found."""
    managers = {f"{model}.objects" for model in OWNED}
    problems = []
    for file in view_files():
        for view in (one for one in source.functions(file) if not one.name.startswith("_")):
            for node in ast.walk(view):
                if (
                    isinstance(node, ast.Attribute)
                    and source.dotted(node.value) in managers
                    and node.attr not in ACCESSORS
                ):
                    name = source.dotted(node)
                    problems.append(f"{file}:{node.lineno}: asks for {name}. Use .visible_to(request.user).")
                is_lookup = isinstance(node, ast.Call) and source.dotted(node.func) == "get_object_or_404"
                if is_lookup and source.dotted(node.args[0]) in OWNED:
                    problems.append(f"{file}:{node.lineno}: looks among all rows. Give it those this user may see.")
    check(problems)


def test_names_say_what_a_module_is_about() -> None:
    empty = ("utils", "util", "helpers", "helper", "manager", "managers", "misc", "base")
    problems = []
    for file in [*source.python_files("webapp", "trainer", "tests"), *source.own("static/js/**/*.js")]:
        parts = file.rsplit(".", 1)[0].split("/")
        if set(parts) & set(empty):
            problems.append(f"{file}: a name that says nothing. Name it for what is in it.")
    for file in source.python_files():
        if source.text(file) and not ast.get_docstring(source.tree(file)):
            problems.append(f"{file}: no docstring. One sentence: what belongs here.")
    check(problems)


def test_nothing_is_left_for_later() -> None:
    marks = tuple("".join(parts) for parts in (("TO", "DO"), ("FIX", "ME"), ("XX", "X")))
    files = [
        *source.python_files("webapp", "trainer", "tests"),
        *source.own("static/js/**/*.js", "templates/**/*.html"),
    ]
    check(
        [
            f"{file}:{number}: {mark}. Do it, or write an issue."
            for file in files
            for number, line in enumerate(source.text(file).splitlines(), 1)
            for mark in marks
            if mark in line.split() or f"{mark}:" in line
        ]
    )
