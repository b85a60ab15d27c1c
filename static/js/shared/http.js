// Requests to our own server, with the CSRF token that every change needs.

export function csrfToken() {
  return document.querySelector('meta[name="csrf-token"]')?.content ?? "";
}

/** fetch() with the token and without caching; `form` is an object or FormData. */
export function post(url, form = {}) {
  const body = form instanceof FormData ? form : new URLSearchParams(form);
  return fetch(url, { method: "POST", body, headers: { "X-CSRFToken": csrfToken() }, credentials: "same-origin" });
}
