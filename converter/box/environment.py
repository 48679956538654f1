"""Which environment variables go into the box: those that steer interpreters and frameworks, and no secret."""

from __future__ import annotations

import re
from collections.abc import Mapping

_KEPT = re.compile(
    r"PATH|LANG|LANGUAGE|LC_\w+|TZ|LD_LIBRARY_PATH|LD_PRELOAD|DYLD_\w+|PYTHON\w+|MALLOC_\w+|GLIBC_TUNABLES|CI"
    r"|(?:TF|XLA|KERAS|ONEDNN|DNNL|TORCH|PYTORCH|ATEN|OMP|GOMP|KMP|MKL|OPENBLAS|BLIS|VECLIB|NUMEXPR|CUDA|NVIDIA|ORT"
    r"|COVERAGE|COV_CORE|CKCONV)_\w+"
)
_SECRET = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|(?:API|ACCESS|PRIVATE|SIGNING|ENCRYPTION)_?KEY|_KEY$|AUTH"
    r"|COOKIE|SESSION|DATABASE_URL|_DSN$|CONNECTION_STRING",
    re.IGNORECASE,
)


def kept(environment: Mapping[str, str], *, is_for_own_code: bool = False) -> dict[str, str]:
    """Return what of `environment` a child process is given.

    Code of the user's own is given all but what is called as secrets are; it may read variables nobody here knows.
    """
    return {
        name: value
        for name, value in environment.items()
        if not _SECRET.search(name) and (is_for_own_code or _KEPT.fullmatch(name))
    }
