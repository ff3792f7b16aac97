"""Does with Helm what lines on standard input ask for, and answers in lines; runs on a Python of its own.

A line is `[action, kubeconfig, namespace, arguments, options]`, its answer `{"result": …}` or
`{"error": …, "message": …}`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import helm_sdkpy  # type: ignore[import-not-found]


def _answer(action: str, kubeconfig: str, namespace: str, arguments: list[Any], options: dict[str, Any]) -> Any:
    with helm_sdkpy.Configuration(namespace=namespace, kubeconfig=kubeconfig) as configuration:
        try:
            return {"result": asyncio.run(getattr(helm_sdkpy, action)(configuration).run(*arguments, **options))}
        except helm_sdkpy.HelmError as error:
            return {"error": type(error).__name__, "message": str(error)}


def main() -> None:
    # what Helm itself prints must not come between the answers
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            print(json.dumps(_answer(*json.loads(line))), file=answers)


if __name__ == "__main__":
    main()
