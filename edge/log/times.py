"""When a photo was taken: what the camera wrote, corrected by what people know of its clock, and what looks wrong.

The correction is an SQL expression that every query uses, so that no two of them disagree; the flags are computed from
a row as it is read, so that a correction or a new deployment changes them at once. Pure: no file, no clock.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from edge.errors import ConfigError

MOST_SHIFT_S = 200 * 366 * 86_400
EPOCH_DAY = 2440587.5
"""1970 in SQLite's Julian days."""
LOOKS_WRONG = CLOCK_RESET, FUTURE, BACKWARDS = "clock-reset", "future", "backwards"

_LAST_FIRMWARE_YEAR = "2000"
"""No camera trap took a photo before: a clock that lost its power starts at 1970, 1980 or 2000 and goes on."""
_RESET_DAYS = ("2010-01-01",)
_SOFTWARE_YEAR = "2024"
"""A row that was written before is of a device that did not know the time itself."""
_FUTURE_BY = {True: timedelta(hours=26), False: timedelta(hours=1)}  # the offset is assumed, or known
_COUNTER = re.compile(r"(.*?)(\d+)(\.[^./]*)", re.DOTALL)


def moment(file: str) -> str:
    """SQL for the uncorrected time of the table alias ``file`` as a Julian day, as in the index ``file_by_time``."""
    return f"coalesce(julianday({file}.taken_local || {file}.utc_offset), 0)"


def holds(file: str) -> str:
    """SQL for whether a correction, as the table alias ``s``, holds for the table alias ``file``."""
    return f"""(s.station IS NULL OR s.station = {file}.station)
    AND (s.device IS NULL OR s.device = {file}.device) AND (s.source IS NULL OR s.source = {file}.source)
    AND (s.since_local IS NULL OR {file}.taken_local >= s.since_local)
    AND (s.until_local IS NULL OR {file}.taken_local < s.until_local)
    AND (s.file_times OR {file}.taken_source <> 'file')"""


def corrected(file: str) -> str:
    """SQL for ``taken_local`` of the table alias ``file`` with all corrections that hold for it."""
    return f"""coalesce((
  SELECT strftime('%Y-%m-%dT%H:%M:%S', substr({file}.taken_local, 1, 19), nullif(sum(s.seconds), 0) || ' seconds')
    || substr({file}.taken_local, 20)
  FROM time_shift s
  WHERE {holds(file)}
), {file}.taken_local)"""


def check_text(text: str, name: str) -> None:
    """Refuse what was typed in another encoding, which no row can hold.

    Raises:
        ConfigError: it is no UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{name} is {ascii(text)[:120]}, expected text in UTF-8.") from error


def parse(text: str, what: str, example: str) -> datetime:
    """A day or time as people type it, in ISO 8601.

    Raises:
        ConfigError: it is none. So is ``2024-05-01+01:00``, which Python takes for one o'clock.
    """
    try:
        if not re.fullmatch(r"[\dW-]{7,10}([ Tt].+)?", text, re.ASCII):
            raise ValueError
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{what} is {text!r}, expected {example}.") from error


def as_camera(moment: datetime) -> str:
    """A time as text that compares with what a camera wrote as the times do: ``.5`` and not ``.500000``, which comes
    after the ``.5`` of a camera."""
    text = moment.isoformat()
    return text.rstrip("0") if "." in text else text


def seconds(text: str) -> int:
    """A difference such as ``+01:00:00``, ``-1d02:30`` or ``+3d`` in seconds.

    Raises:
        ConfigError: it is none, is zero, or has more than 200 years.
    """
    match = re.fullmatch(r"([+-])(?:(\d{1,6})d)?(?:(\d{1,2}):([0-5]\d)(?::([0-5]\d))?)?", text, re.ASCII)
    if match is None or not (match[2] or match[3]):
        raise ConfigError(f"the difference is {text!r}, expected one such as +01:00:00 or -1d02:30:00.")
    days, hours, minutes, rest = (int(part or 0) for part in match.groups()[1:])
    total = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    if not 0 < total <= MOST_SHIFT_S:
        raise ConfigError(f"the difference is {text!r}, expected more than nothing and less than 200 years.")
    return -total if match[1] == "-" else total


def difference(total_s: int) -> str:
    """Seconds as :func:`seconds` reads them."""
    days, rest = divmod(abs(total_s), 86_400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return ("-" if total_s < 0 else "+") + (f"{days}d" if days else "") + clock


def flags(
    *, local: str, utc_offset: str, written: tuple[str, ...], seen_utc: str, starts: datetime | None = None
) -> tuple[str, ...]:
    """What looks wrong about a time, after all corrections.

    ``clock-reset``: of a year or day at which cameras start that lost their power, or before the first deployment of
    the station. ``future``: later than the device saw the file.

    Args:
        local: the corrected time, ISO 8601 without offset.
        written: the flags that were written with the row.
        starts: the station's first deployment; None where it is not known.
    """
    found = []
    reset = _is_reset(local)
    if reset or (starts is not None and datetime.fromisoformat(local + utc_offset) < starts):
        found.append(CLOCK_RESET)
    # Most photos are older by days than the row, so texts decide nearly always. West of Greenwich the camera's day can
    # be the one before.
    can_be = local[:10] >= seen_utc[:10] or utc_offset[0] == "-"
    if not reset and can_be and seen_utc[:4] >= _SOFTWARE_YEAR:
        moment = datetime.fromisoformat(local + utc_offset)
        if moment > datetime.fromisoformat(seen_utc) + _FUTURE_BY["offset-assumed" in written]:
            found.append(FUTURE)
    return tuple(found)


def _is_reset(local: str) -> bool:
    return local[:4] <= _LAST_FIRMWARE_YEAR or local[:10] in _RESET_DAYS


def is_backwards(path: str, local: str, path_before: str | None, local_before: str | None) -> bool:
    """Whether the file before this one in the order of names has a lower counter in the same series, but was taken
    later: the camera's clock was set back between them, or has lost its power."""
    if path_before is None or local_before is None or local_before <= local:
        return False
    here, before = _COUNTER.fullmatch(path), _COUNTER.fullmatch(path_before)
    return bool(here and before and here[1] == before[1] and len(here[2]) == len(before[2]) and here[2] > before[2])
