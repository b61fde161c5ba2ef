"""Ask every address that the project's pages name whether it is still there."""

import http.client
import re
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("keras_scnn/assets/**/*.md")]
ADDRESS = re.compile(r"https?://(?!127\.)[^\s)>\"'`\]]+")


def problem(address: str) -> str:
    """Why an address does not answer; '' where it does."""
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "keras_scnn link check"})
        with urllib.request.urlopen(request, timeout=30):
            return ""
    except urllib.error.HTTPError as error:
        return "" if error.code in (403, 429) else str(error)  # there, but not for scripts
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(error) or repr(error)


def main() -> int:
    homes: dict[str, set[str]] = {}
    for page in PAGES:
        for address in ADDRESS.findall(page.read_text()):
            homes.setdefault(address.rstrip(".,;:"), set()).add(str(page.relative_to(ROOT)))
    with ThreadPoolExecutor(8) as pool:
        problems = dict(zip(homes, pool.map(problem, homes), strict=True))
    for address, reason in problems.items():
        if reason:
            print(f"{', '.join(sorted(homes[address]))}: {address}: {reason}")
    print(f"{len(homes)} addresses, {sum(map(bool, problems.values()))} do not answer")
    return any(problems.values())


if __name__ == "__main__":
    sys.exit(main())
