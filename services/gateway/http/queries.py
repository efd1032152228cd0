"""Query parameters, validated on the way in: whatever stands there, an answer that says what may."""

from __future__ import annotations

from aiohttp import web

from services.gateway.http.problems import invalid


def whole_number(request: web.Request, name: str, default: int, least: int, most: int) -> int:
    """The parameter `name`, or default where there is none. Raises: ApiProblem, 400."""
    text = request.query.get(name, str(default))
    digits = text.removeprefix("-") if least < 0 else text
    # Its length first: int() refuses thousands of digits with an error of its own.
    longest = max(len(str(abs(least))), len(str(abs(most))))
    if 0 < len(digits) <= longest and digits.isascii() and digits.isdigit() and least <= int(text) <= most:
        return int(text)
    raise invalid(f"{name} is a whole number from {least} to {most}")
