"""Damage of a file: deterministic for a random generator, blind to formats but for two."""

import io
import random
import re
import zipfile

ODD_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 20, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
ODD_TEXT = (
    b"-1", b"0", b"1e999", b"nan", b"99999999999999999999", b"[", b"{", b'"', b"null", b"\xff",
    b"", b"\n", b"&a *a", b"!!int ''", b"../../x", b"\x00",
)  # fmt: skip


def damaged(data: bytes, rng: random.Random) -> bytes:
    """One to four mutations; of a .npz file half of the time inside of a member."""
    if data[:2] == b"PK" and rng.random() < 0.5:
        return _inside_zip(data, rng)
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice(MUTATIONS)(content, rng)
    return bytes(content)


def _inside_zip(data: bytes, rng: random.Random) -> bytes:
    """A whole archive, with right checksums, around one damaged member."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = rng.choice(list(members))
    content = bytearray(members[chosen])
    for _ in range(rng.choice((1, 2))):
        rng.choice(MUTATIONS)(content, rng)
    members[chosen] = bytes(content)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return file.getvalue()


def _place(content: bytearray, rng: random.Random) -> int:
    """Anywhere, but in the first kilobyte, where the headers are, as often as elsewhere."""
    length = min(len(content), 1024) if rng.random() < 0.5 else len(content)
    return rng.randrange(max(length, 1))


def _flip_bit(content: bytearray, rng: random.Random) -> None:
    if content:
        content[_place(content, rng)] ^= 1 << rng.randrange(8)


def _set_byte(content: bytearray, rng: random.Random) -> None:
    if content:
        content[_place(content, rng)] = rng.randrange(256)


def _set_number(content: bytearray, rng: random.Random) -> None:
    size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    number = rng.choice(ODD_NUMBERS) & ((1 << 8 * size) - 1)
    at = _place(content, rng)
    content[at : at + size] = number.to_bytes(size, order)


def _cut_off(content: bytearray, rng: random.Random) -> None:
    del content[_place(content, rng) :]


def _delete(content: bytearray, rng: random.Random) -> None:
    at = _place(content, rng)
    del content[at : at + rng.randint(1, 16)]


def _repeat(content: bytearray, rng: random.Random) -> None:
    at = _place(content, rng)
    content[at:at] = content[at : at + rng.randint(1, 64)] * rng.randint(1, 20)


def _move(content: bytearray, rng: random.Random) -> None:
    source, target = _place(content, rng), _place(content, rng)
    part = content[source : source + rng.randint(1, 32)]
    content[target : target + len(part)] = part


def _odd_text(content: bytearray, rng: random.Random) -> None:
    """Replace a word or number by odd text, or insert odd text anywhere."""
    words = list(re.finditer(rb"[\w.+-]+", bytes(content[:4096])))
    if words and rng.random() < 0.7:
        word = rng.choice(words)
        content[word.start() : word.end()] = rng.choice(ODD_TEXT)
    else:
        at = _place(content, rng)
        content[at:at] = rng.choice(ODD_TEXT) * rng.choice((1, 1, 1, 100))


MUTATIONS = (
    _flip_bit, _flip_bit, _set_byte, _set_number, _set_number, _cut_off, _delete, _repeat, _move,
    _odd_text,
)  # fmt: skip
