from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Calls(_message.Message):
    __slots__ = ("calls",)
    CALLS_FIELD_NUMBER: _ClassVar[int]
    calls: _containers.RepeatedCompositeFieldContainer[Call]
    def __init__(self, calls: _Optional[_Iterable[_Union[Call, _Mapping]]] = ...) -> None: ...

class Call(_message.Message):
    __slots__ = ("id", "kind", "body", "number", "lease")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[Call.Kind]
        RANGE: _ClassVar[Call.Kind]
        SUBMIT: _ClassVar[Call.Kind]
        KEEP_ALIVE: _ClassVar[Call.Kind]
        WATCH: _ClassVar[Call.Kind]
        CANCEL: _ClassVar[Call.Kind]
        LEASE_GRANT: _ClassVar[Call.Kind]
    UNKNOWN: Call.Kind
    RANGE: Call.Kind
    SUBMIT: Call.Kind
    KEEP_ALIVE: Call.Kind
    WATCH: Call.Kind
    CANCEL: Call.Kind
    LEASE_GRANT: Call.Kind
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    id: int
    kind: Call.Kind
    body: bytes
    number: int
    lease: int
    def __init__(self, id: _Optional[int] = ..., kind: _Optional[_Union[Call.Kind, str]] = ..., body: _Optional[bytes] = ..., number: _Optional[int] = ..., lease: _Optional[int] = ...) -> None: ...

class Replies(_message.Message):
    __slots__ = ("replies", "leader", "members")
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    replies: _containers.RepeatedCompositeFieldContainer[Reply]
    leader: str
    members: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, replies: _Optional[_Iterable[_Union[Reply, _Mapping]]] = ..., leader: _Optional[str] = ..., members: _Optional[_Iterable[str]] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("id", "status", "body", "number", "message", "more")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OK: _ClassVar[Reply.Status]
        COMPACTED: _ClassVar[Reply.Status]
        FUTURE_REVISION: _ClassVar[Reply.Status]
        UNAVAILABLE: _ClassVar[Reply.Status]
        LEASE_NOT_FOUND: _ClassVar[Reply.Status]
        LEASE_EXISTS: _ClassVar[Reply.Status]
        INVALID_REQUEST: _ClassVar[Reply.Status]
        TOO_LARGE: _ClassVar[Reply.Status]
        NO_SPACE: _ClassVar[Reply.Status]
    OK: Reply.Status
    COMPACTED: Reply.Status
    FUTURE_REVISION: Reply.Status
    UNAVAILABLE: Reply.Status
    LEASE_NOT_FOUND: Reply.Status
    LEASE_EXISTS: Reply.Status
    INVALID_REQUEST: Reply.Status
    TOO_LARGE: Reply.Status
    NO_SPACE: Reply.Status
    ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    id: int
    status: Reply.Status
    body: bytes
    number: int
    message: str
    more: bool
    def __init__(self, id: _Optional[int] = ..., status: _Optional[_Union[Reply.Status, str]] = ..., body: _Optional[bytes] = ..., number: _Optional[int] = ..., message: _Optional[str] = ..., more: _Optional[bool] = ...) -> None: ...
