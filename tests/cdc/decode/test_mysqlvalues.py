"""Values of row images: what the server's own forms mean, and what is too short."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.decode import mysqlvalues as values

DIGIT_BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)


def packed_decimal(number: int, precision: int, scale: int) -> bytes:
    """`decimal2bin` of sql-common/my_decimal.cc; `number` counts units of the last digit."""
    digits = str(abs(number)).rjust(precision, "0")
    whole = precision - scale
    cuts = [whole % 9, *[9] * (whole // 9), *[9] * (scale // 9), scale % 9]
    out = b""
    for size in cuts:
        part, digits = digits[:size], digits[size:]
        out += int(part or "0").to_bytes(DIGIT_BYTES[size], "big")
    if number < 0:
        out = bytes(255 - byte for byte in out)
    return bytes([out[0] ^ 0x80]) + out[1:]


@given(st.data())
def test_a_decimal_of_any_digits_is_the_number_that_was_written(data: st.DataObject) -> None:
    precision = data.draw(st.integers(1, 65))
    scale = data.draw(st.integers(0, min(precision, 38)))
    number = data.draw(st.integers(-(10**precision) + 1, 10**precision - 1))
    raw = packed_decimal(number, precision, scale)
    text, end = values.decimal(precision, scale)(b"??" + raw + b"tail", 2)
    assert end == 2 + len(raw)
    digits = str(abs(number)).rjust(scale + 1, "0")
    whole, fraction = digits[: len(digits) - scale], digits[len(digits) - scale :]
    sign = "-" if number < 0 else ""
    assert text.decode() == sign + whole + ("." + fraction if scale else "")


@given(st.sampled_from([1, 2, 3, 4, 8]), st.data())
def test_an_integer_is_the_number_that_was_written(size: int, data: st.DataObject) -> None:
    top = 1 << (size * 8)
    number = data.draw(st.integers(-(top // 2), top // 2 - 1))
    raw = number.to_bytes(size, "little", signed=True)
    assert values.integer(size, unsigned=False)(raw, 0) == (b"%d" % number, size)
    assert values.integer(size, unsigned=True)(raw, 0) == (b"%d" % (number % top), size)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_double_is_its_shortest_digits(number: float) -> None:
    text, _ = values.floating(8)(struct.pack("<d", number), 0)
    assert float(text) == number


@given(st.integers(-3_020_399_999_999, 3_020_399_999_999))
def test_a_time_of_any_sign_and_fraction_is_what_was_written(micros: int) -> None:
    seconds, part = divmod(abs(micros), 1_000_000)
    packed = seconds // 3600 << 12 | seconds // 60 % 60 << 6 | seconds % 60
    signed = (packed << 24 | part) * (-1 if micros < 0 else 1)
    text, end = values.moment("time", 6)((signed + (1 << 47)).to_bytes(6, "big"), 0)
    clock = b"%02d:%02d:%02d" % (seconds // 3600, seconds // 60 % 60, seconds % 60)
    tail = (b".%06d" % part).rstrip(b"0") if part else b""
    assert (text, end) == ((b"-" if micros < 0 else b"") + clock + tail, 6)


@pytest.mark.parametrize(
    "read",
    [
        values.decimal(10, 2),
        values.floating(4),
        values.moment("date", 0),
        values.fixed(4, bytes),
        values.prefixed(2, None),
    ],
)
def test_a_value_that_is_cut_never_ends_inside_its_data(read: values.Read) -> None:
    """Whoever reads a row checks where it ends; nothing may look whole that is not."""
    for size in range(2):
        data = b"\x03" * size
        try:
            _, end = read(data, 0)
        except (IndexError, struct.error):
            continue
        assert end > len(data)


def test_a_label_or_set_outside_of_its_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="label 3 of 2"):
        values.enumerated(1, [b"a", b"b"])(b"\3", 0)
    with pytest.raises(ValueError, match="0x4 of 2 labels"):
        values.set_of(1, [b"a", b"b"])(b"\4", 0)
