"""Files of bbolt, the database of etcd: named buckets of rows in order of their keys, each bucket a B+ tree of pages.

A file is written in one go, front to back: how long the rows are comes first (`Plan`), so that every page is known to
its place before the first byte is given away, then the rows themselves. It reads what bbolt wrote, of any age: buckets
inline or apart, pages of any length. It knows nothing of what the rows mean.

    file    = meta, meta, free list, leaf of the buckets' names, pages of each bucket
    page    = id (u64), kind (u16), count (u16), further pages of 4,096 bytes that belong to it (u32), elements, bytes
    leaf    = flags (u32, 1 for a bucket), where from here (u32), length of the key (u32), of the value (u32); each row
    branch  = where the key is from here (u32), its length (u32), page (u64); each page, with its first key
    bucket  = first page (u64), sequence (u64); with 0 for the page one page follows, in the value itself
    meta    = magic, version, page length, flags (u32 each), bucket of the names, free list, pages, transaction (u64
              each), FNV-1a (64 bits) of all before

All numbers are little-endian. Source: https://github.com/etcd-io/bbolt (page.go, db.go, bucket.go; format version 2).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

PAGE_BYTES = 4096
#: bytes at which a leaf is full: in single pages two values of 2 KB would take the room of three
LEAF_BYTES_MAX = 4 * PAGE_BYTES
#: levels of a tree: five hold more than any disk
DEPTH_MAX = 32

_PAGE = struct.Struct("<QHHI")
_LEAF = struct.Struct("<IIII")
_BRANCH = struct.Struct("<IIQ")
_BUCKET = struct.Struct("<QQ")
_META = struct.Struct("<IIIIQQQQQ")
_CHECKSUM = struct.Struct("<Q")
_IS_BRANCH, _IS_LEAF, _IS_META, _IS_FREE_LIST = 0x01, 0x02, 0x04, 0x10
_IS_BUCKET = 1
_MAGIC, _VERSION = 0xED0CDAED, 2
#: pages before those of the first bucket
_FREE_LIST_PAGE, _NAMES_PAGE, _FIRST_PAGE = 2, 3, 4

Row = tuple[bytes, bytes]


class Damaged(Exception):
    """The bytes are no file of bbolt, or not a whole one."""


@dataclass(slots=True)
class _Node:
    """A page to be: its first key, how many elements and how many bytes it has, and where it will lie."""

    key: bytes
    count: int = 0
    size_bytes: int = _PAGE.size
    page: int = 0

    @property
    def pages(self) -> int:
        return -(-self.size_bytes // PAGE_BYTES)


@dataclass(slots=True)
class Plan:
    """How the rows of one bucket will be spread over pages; they are added in order of their keys."""

    _leaves: list[_Node] = field(default_factory=lambda: [_Node(b"")])
    #: the levels above the leaves, the lowest first
    _branches: list[list[_Node]] = field(default_factory=list)

    def extend(self, rows: Iterable[tuple[bytes, int]]) -> None:
        """Adds rows, each as its key and the length of its value in bytes."""
        leaf = self._leaves[-1]
        for key, value_bytes in rows:
            row_bytes = _LEAF.size + len(key) + value_bytes
            if leaf.count and leaf.size_bytes + row_bytes > LEAF_BYTES_MAX:
                leaf = _Node(key)
                self._leaves.append(leaf)
            if not leaf.count:
                leaf.key = key
            leaf.count += 1
            leaf.size_bytes += row_bytes

    def place(self, first_page: int) -> tuple[int, int]:
        """Gives every page its place; returns the page of the root and the first one after all."""
        page, level = _placed(self._leaves, first_page), self._leaves
        while len(level) > 1:
            level = _parents(level)
            self._branches.append(level)
            page = _placed(level, page)
        return level[0].page, page

    def pages(self, rows: Iterable[Row]) -> Iterator[bytes]:
        """Yields the pages, given the rows that were planned for."""
        source = iter(rows)
        for leaf in self._leaves:
            yield _leaf(leaf, [next(source) for _ in range(leaf.count)])
        if next(source, None) is not None:
            raise ValueError("there are more rows than were planned for")
        below = self._leaves
        for level in self._branches:
            children = iter(below)
            for node in level:
                yield _branch(node, [next(children) for _ in range(node.count)])
            below = level


class File:
    """A file whose rows are all planned for.

    Attributes:
        size_bytes: of the whole file.
    """

    def __init__(self, plans: Mapping[bytes, Plan]) -> None:
        self._plans = dict(sorted(plans.items()))
        self._roots: dict[bytes, int] = {}
        page = _FIRST_PAGE
        for name, plan in self._plans.items():
            self._roots[name], page = plan.place(page)
        self._pages = page
        self.size_bytes = page * PAGE_BYTES

    def pieces(self, rows: Mapping[bytes, Iterable[Row]]) -> Iterator[bytes]:
        """Yields the file, page by page.

        Args:
            rows: of each bucket, exactly those that were planned for.
        """
        for page in (0, 1):
            yield _page(page, _IS_META, 0, self._meta(transaction=page))
        yield _page(_FREE_LIST_PAGE, _IS_FREE_LIST, 0, b"")
        names = [(name, _BUCKET.pack(root, 0)) for name, root in self._roots.items()]
        yield _page(_NAMES_PAGE, _IS_LEAF, len(names), _elements(names, _IS_BUCKET))
        for name, plan in self._plans.items():
            yield from plan.pages(rows[name])

    def _meta(self, transaction: int) -> bytes:
        root, sequence = _NAMES_PAGE, 0
        places = (root, sequence, _FREE_LIST_PAGE, self._pages, transaction)
        meta = _META.pack(_MAGIC, _VERSION, PAGE_BYTES, 0, *places)
        return meta + _CHECKSUM.pack(_fnv1a(meta))


def _placed(nodes: list[_Node], page: int) -> int:
    for node in nodes:
        node.page = page
        page += node.pages
    return page


def _parents(level: list[_Node]) -> list[_Node]:
    parents = [_Node(level[0].key)]
    for node in level:
        element_bytes = _BRANCH.size + len(node.key)
        if parents[-1].count > 1 and parents[-1].size_bytes + element_bytes > PAGE_BYTES:
            parents.append(_Node(node.key))
        parents[-1].count += 1
        parents[-1].size_bytes += element_bytes
    return parents


def _page(page: int, kind: int, count: int, content: bytes) -> bytes:
    size_bytes = _PAGE.size + len(content)
    further = -(-size_bytes // PAGE_BYTES) - 1
    padding = bytes((further + 1) * PAGE_BYTES - size_bytes)
    return b"".join((_PAGE.pack(page, kind, count, further), content, padding))


def _elements(rows: list[Row], flags: int = 0) -> bytes:
    numbers: list[int] = []
    content: list[bytes] = []
    offset = _LEAF.size * len(rows)
    for key, value in rows:
        numbers += (flags, offset, len(key), len(value))
        content += (key, value)
        offset += len(key) + len(value) - _LEAF.size  # it counts from the element, and the next one lies further
    return struct.pack(f"<{len(numbers)}I", *numbers) + b"".join(content)


def _leaf(node: _Node, rows: list[Row]) -> bytes:
    page = _page(node.page, _IS_LEAF, node.count, _elements(rows))
    if len(page) != node.pages * PAGE_BYTES:
        raise ValueError("the rows are not those that were planned for")
    return page


def _branch(node: _Node, children: list[_Node]) -> bytes:
    elements: list[bytes] = []
    offset = _BRANCH.size * len(children)
    for child in children:
        elements.append(_BRANCH.pack(offset, len(child.key), child.page))
        offset += len(child.key) - _BRANCH.size
    keys = b"".join(child.key for child in children)
    return _page(node.page, _IS_BRANCH, node.count, b"".join(elements) + keys)


def _fnv1a(data: bytes) -> int:
    found = 0xCBF29CE484222325
    for byte in data:
        found = ((found ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return found


class Reader:
    """The newest state in a file.

    Args:
        data: the whole file; nothing after it.

    Raises:
        Damaged: it is no file of bbolt.
    """

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._page_bytes, self._root = _newest_meta(data)
        #: pages that were met: none belongs to two trees or lies below itself
        self._met: set[int] = set()

    def buckets(self) -> Iterator[tuple[bytes, Iterator[Row]]]:
        """Yields each bucket's name and its rows, in order; once.

        Raises:
            Damaged: the file is not whole.
        """
        for flags, name, value in self._tree(self._root, 0):
            if flags & _IS_BUCKET:
                yield name, self._rows(name, value)

    def _rows(self, name: bytes, bucket: bytes) -> Iterator[Row]:
        if len(bucket) < _BUCKET.size:
            raise Damaged(f"bucket {name!r} has no beginning")
        root = _BUCKET.unpack_from(bucket)[0]
        inline = memoryview(bucket)[_BUCKET.size :]
        last: bytes | None = None
        for _, key, value in self._tree(root, 0) if root else _leaf_rows(inline, 0):
            if last is not None and key <= last:
                raise Damaged(f"the rows of bucket {name!r} are out of order")
            last = key
            yield key, value

    def _tree(self, page: int, depth: int) -> Iterator[tuple[int, bytes, bytes]]:
        start = page * self._page_bytes
        if page in self._met or depth > DEPTH_MAX or start + self._page_bytes > len(self._data):
            raise Damaged(f"page {page} cannot be where it is named")
        self._met.add(page)
        found, kind, count, further = _PAGE.unpack_from(self._data, start)
        content = self._data[start : start + (further + 1) * self._page_bytes]
        if found != page or kind not in (_IS_BRANCH, _IS_LEAF):
            raise Damaged(f"page {page} holds something else")
        if kind == _IS_LEAF:
            yield from _leaf_rows(content, page)
            return
        if _PAGE.size + count * _BRANCH.size > len(content):
            raise Damaged(f"page {page} ends too early")
        for number in range(count):
            yield from self._tree(_BRANCH.unpack_from(content, _PAGE.size + number * _BRANCH.size)[2], depth + 1)


def _leaf_rows(content: memoryview, page: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Yields (flags, key, value) of each row of a leaf."""
    size_bytes = len(content)
    count = _PAGE.unpack_from(content)[2] if size_bytes >= _PAGE.size else 0
    if size_bytes < _PAGE.size + count * _LEAF.size:
        raise Damaged(f"page {page} ends too early")
    for element in range(_PAGE.size, _PAGE.size + count * _LEAF.size, _LEAF.size):
        flags, offset, key_bytes, value_bytes = _LEAF.unpack_from(content, element)
        key = element + offset
        value = key + key_bytes
        if value + value_bytes > size_bytes:
            raise Damaged(f"a row of page {page} lies outside of it")
        yield flags, bytes(content[key:value]), bytes(content[value : value + value_bytes])


def _newest_meta(data: memoryview) -> tuple[int, int]:
    """Returns the length of a page and the page of the names, of the newer of the whole metas."""
    found: list[tuple[int, int, int]] = []
    for offset in (0, PAGE_BYTES):
        end = offset + _PAGE.size + _META.size
        if end + _CHECKSUM.size > len(data):
            break
        meta = data[offset + _PAGE.size : end]
        magic, version, page_bytes, _, root, _, _, _, transaction = _META.unpack(meta)
        is_whole = _CHECKSUM.unpack_from(data, end)[0] == _fnv1a(bytes(meta))
        if magic == _MAGIC and version == _VERSION and is_whole:
            found.append((transaction, page_bytes, root))
    if not found:
        raise Damaged("it does not begin as a database of etcd")
    _, page_bytes, root = max(found)
    if page_bytes < 512 or page_bytes & (page_bytes - 1):
        raise Damaged(f"its pages cannot have {page_bytes} bytes")
    return page_bytes, root
