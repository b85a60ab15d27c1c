"""Django settings, all of them from the environment; `.env.example` lists every variable."""

from pathlib import Path
from urllib.parse import quote

import environ
from csp.constants import NONE, SELF

from webapp import env

ROOT = Path(__file__).resolve().parent.parent
if (ROOT / ".env").is_file():
    environ.Env.read_env(ROOT / ".env")  # never over a variable that is set

# Where everything lies
DATA_DIR = Path(env.text("DATA_DIR", str(ROOT / "data"))).expanduser().resolve()
FILES_DIR = DATA_DIR / "files"  # what database rows point to
RUNS_DIR = DATA_DIR / "runs"  # what attempts write; visible to nobody before a row points to it
BASES_ROOTS = [Path(one).expanduser().resolve() for one in env.words("BASES_ROOTS") or [str(DATA_DIR / "bases")]]

# Core
DEBUG = env.flag("DEBUG", default=False)
HOST = env.text("HOST", "127.0.0.1")
PORT = env.whole("PORT", default=8000, lowest=1, highest=65535)
WEB_CONCURRENCY = env.whole("WEB_CONCURRENCY", default=2, lowest=1, highest=256)
BASE_URL = env.text("BASE_URL", f"http://{'localhost' if HOST == '127.0.0.1' else env.in_url(HOST)}:{PORT}").rstrip("/")
SECURE = BASE_URL.startswith("https://")
ALLOWED_HOSTS = env.allowed_hosts(HOST, BASE_URL)
CSRF_TRUSTED_ORIGINS = [BASE_URL, *env.words("CSRF_TRUSTED_ORIGINS")]
ROOT_URLCONF = "webapp.urls"
ASGI_APPLICATION = "webapp.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
USE_I18N = False

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "servestatic.runserver_nostatic",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "csp",
    "webapp.common",
    "webapp.accounts",
    "webapp.datasets",
    "webapp.adapters",
    "webapp.jobs",
    "webapp.chat",
    "webapp.api",
    "webapp.system",
]

MIDDLEWARE = [
    "webapp.api.border.ApiMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "webapp.accounts.middleware.CurrentTeamMiddleware",
    "webapp.common.middleware.PrivateCacheMiddleware",
    "webapp.common.middleware.UserErrorMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ROOT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "webapp.system.context.frame",
            ],
            "builtins": ["django.contrib.humanize.templatetags.humanize", "webapp.common.templatetags.lowrank"],
        },
    }
]

# Database, cache, queue
VALKEY_SOCKET = env.embedded_socket(DATA_DIR)
EMBEDDED_VALKEY = not env.text("REDIS_URL")  # then `manage.py up` starts a server of its own on VALKEY_SOCKET
REDIS_URL = env.text("REDIS_URL", f"unix://{quote(str(VALKEY_SOCKET))}")
CELERY_BROKER_URL, CACHE_URL = env.broker_urls(REDIS_URL)
DATABASES = {"default": env.database(DATA_DIR, REDIS_URL)}
CACHES = {"default": {"BACKEND": "webapp.common.cache.FallbackCache", "LOCATION": CACHE_URL}}
SESSION_ENGINE = "django.contrib.sessions.backends.db"  # a flushed cache signs nobody out

CELERY_TASK_SERIALIZER = CELERY_RESULT_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False  # the lease in the database recovers lost work, never the broker: it would run jobs twice
# It concerns late acknowledgement alone. Left unset, every worker warns of it whenever the broker goes away.
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# A doorbell rung while the broker is away gives up at once: the request goes on, and the reconciler rings again.
CELERY_TASK_PUBLISH_RETRY = False
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "max_retries": 0,
    "socket_timeout": 3,  # how long a doorbell waits for a server that is there and silent; workers wait 1 s at a time
    "socket_connect_timeout": 3,
    "socket_keepalive": True,
    "health_check_interval": 25,
    "global_keyprefix": "lowrank:",
}
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {"jobs.work": {"queue": "gpu"}, "chat.*": {"queue": "chat"}}
# The lease: a worker's sign of life, how long it may be missing, and how often the scheduler looks.
HEARTBEAT_SECONDS = env.number("HEARTBEAT_SECONDS", default=5.0, lowest=0.1, highest=3600)
LEASE_SECONDS = env.number("LEASE_SECONDS", default=30.0, lowest=0.1, highest=3600)
RECONCILE_SECONDS = env.number("RECONCILE_SECONDS", default=5.0, lowest=0.1, highest=3600)
# How long a training run may take to write its checkpoint when its worker is asked to go.
HAND_BACK_SECONDS = env.number("HAND_BACK_SECONDS", default=5.0, lowest=0.1, highest=3600)

# People
AUTH_USER_MODEL = "accounts.User"
# Django's own backend with login by e-mail; one alone, so that a wrong password is hashed once.
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "account_login"
ACCOUNT_ADAPTER = "webapp.accounts.adapter.AccountAdapter"
ACCOUNT_FORMS = {
    "login": "webapp.accounts.password_forms.LoginForm",
    "reset_password": "webapp.accounts.password_forms.ResetPasswordForm",
    "reset_password_from_key": "webapp.accounts.password_forms.ResetPasswordKeyForm",
    "change_password": "webapp.accounts.password_forms.ChangePasswordForm",
    "set_password": "webapp.accounts.password_forms.SetPasswordForm",
}
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_EMAIL_VERIFICATION = "none"  # a box of one's own often has no mail server
ACCOUNT_EMAIL_UNKNOWN_ACCOUNTS = False  # mail to strangers who never asked for an account here
ACCOUNT_EMAIL_SUBJECT_PREFIX = "Lowrank: "
ACCOUNT_LOGIN_ON_PASSWORD_RESET = True
# `key` is account and address together (see AccountAdapter). The second rate slows down who keeps trying for hours.
ACCOUNT_RATE_LIMITS = {"login_failed": "10/15m/key,30/6h/key,60/15m/ip"}
ACCOUNT_SESSION_REMEMBER = True
vars().update(env.email())
DEFAULT_FROM_EMAIL = env.text("DEFAULT_FROM_EMAIL", "lowrank@localhost")

# Security
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:"],
        "script-src": [SELF],
        "style-src": [SELF],
        "object-src": [NONE],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = SECURE
# Browsers take a __Host- cookie only from this very host over https: no neighbour below the same domain can plant one.
SESSION_COOKIE_NAME = "__Host-lowrank" if SECURE else "lowrank"
CSRF_COOKIE_NAME = "__Host-csrftoken" if SECURE else "csrftoken"
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]  # asked by the machine itself, over plain HTTP
SECURE_HSTS_SECONDS = 31_536_000 if SECURE else 0
BEHIND_PROXY = env.flag("BEHIND_PROXY", default=False)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if BEHIND_PROXY else None
ALLAUTH_TRUSTED_PROXY_COUNT = 1 if BEHIND_PROXY else 0  # else X-Forwarded-For is whatever the visitor wrote
SILENCED_SYSTEM_CHECKS = [
    "security.W005",  # HSTS for subdomains and preloading bind names beside ours: their owner decides, at the proxy
    "security.W021",
]
SESSION_COOKIE_HTTPONLY = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 2_621_440
MAX_UPLOAD_BYTES = env.whole("MAX_UPLOAD_MB", default=4096, lowest=1) * 1024 * 1024
# Uploads in flight lie on the disk that holds the data: /tmp is often small, or memory. Bodies as well: see asgi.py.
FILE_UPLOAD_TEMP_DIR = DATA_DIR / "uploads"

# Static files
STATIC_URL = "/static/"
STATICFILES_DIRS = [ROOT / "static"]
STATIC_ROOT = DATA_DIR / "staticfiles"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "servestatic.storage.CompressedManifestStaticFilesStorage"},
}

# API: requests a minute of one key; 0 sets no limit
API_REQUESTS_PER_MINUTE = env.whole("API_REQUESTS_PER_MINUTE", default=3000, lowest=0)

# Training and chat
CHAT_DTYPE = env.choice("CHAT_DTYPE", "auto", ("auto", "bfloat16", "float16", "float32"))
CHAT_QUANTIZATION = env.choice("CHAT_QUANTIZATION", "none", ("none", "int8", "nf4"))
CHAT_ENGINES = env.whole("CHAT_ENGINES", default=1, lowest=1)  # base models that stay in a chat worker's memory
CHAT_ADAPTERS = env.whole("CHAT_ADAPTERS", default=32, lowest=1)  # adapters that stay loaded on each of them
DEMO_MODEL = env.flag("DEMO_MODEL", default=True)

LOG_LEVEL = env.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s", "datefmt": "%Y-%m-%d %H:%M:%S"}
    },
    "filters": {
        "without_traceback": {"()": "webapp.system.logs.WithoutTraceback"},
        "without_refused_forms": {"()": "webapp.system.logs.WithoutRefusedForms"},
        "without_heads": {"()": "webapp.system.logs.WithoutHeads"},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "bitsandbytes": {"level": "ERROR"},  # warns that a faster kernel could be fetched from a hub at run time
        # One line per task received and done would bury the rest: the scheduler rings every few seconds.
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
        "celery.worker.consumer.consumer": {"filters": ["without_traceback"]},  # of a broker that goes and comes back
        "django.request": {"filters": ["without_refused_forms"]},
        "django.security.DisallowedHost": {"filters": ["without_traceback"]},
    },
}

# Last, when every value above is sound: a wrong one leaves nothing behind.
env.make_folders(DATA_DIR, FILE_UPLOAD_TEMP_DIR)
SECRET_KEY = env.secret_key(DATA_DIR)
