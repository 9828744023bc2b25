"""What is wrong with a command line, in our words where the parser's speak of its types."""

import typer
from pydantic import ValidationError


def usage_message(error: typer.TyperException) -> str:
    """One line on an option or argument that is unknown, missing, or has a value it cannot take."""
    if isinstance(error, typer.BadParameter) and error.param is not None:
        name = error.param.opts[0]
        if not name.startswith("-"):
            name = name.upper()  # an argument, as the help writes it
        if isinstance(error.__cause__, ValidationError):
            return f"{name} {_refusal(error.__cause__)}"
        if not error.message:
            return f"{name} is missing: {getattr(error.param, 'help', '')}".rstrip(": .")
    suggestions = getattr(error, "possibilities", None)  # of an unknown option, the nearest first
    if suggestions:
        return f"{error.message}; did you mean {suggestions[0]}?"
    return error.format_message().removesuffix(".")


def _refusal(error: ValidationError) -> str:
    """Why a value is refused: `'x' is not a whole number`."""
    first = error.errors()[0]
    value, details = first["input"], first.get("ctx", {})
    match first["type"]:
        case "int_parsing" | "int_parsing_size":
            return f"{value!r} is not a whole number; use one such as 3"
        case "float_parsing":
            return f"{value!r} is not a number; use one such as 0.5"
        case "value_error":
            return str(details["error"]).removesuffix(".")
        case _:
            return f"{value!r} is refused: {first['msg']}"
