from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Host(_message.Message):
    __slots__ = ("name", "address", "data_dir", "runtime")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DATA_DIR_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    data_dir: str
    runtime: str
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., data_dir: _Optional[str] = ..., runtime: _Optional[str] = ...) -> None: ...

class StoreMember(_message.Message):
    __slots__ = ("id", "host", "slot")
    ID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    id: int
    host: str
    slot: int
    def __init__(self, id: _Optional[int] = ..., host: _Optional[str] = ..., slot: _Optional[int] = ...) -> None: ...

class Cluster(_message.Message):
    __slots__ = ("incarnation", "ray_token", "hosts", "members", "founders")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    RAY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    FOUNDERS_FIELD_NUMBER: _ClassVar[int]
    incarnation: str
    ray_token: str
    hosts: _containers.RepeatedCompositeFieldContainer[Host]
    members: _containers.RepeatedCompositeFieldContainer[StoreMember]
    founders: int
    def __init__(self, incarnation: _Optional[str] = ..., ray_token: _Optional[str] = ..., hosts: _Optional[_Iterable[_Union[Host, _Mapping]]] = ..., members: _Optional[_Iterable[_Union[StoreMember, _Mapping]]] = ..., founders: _Optional[int] = ...) -> None: ...

class MembersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MembersReply(_message.Message):
    __slots__ = ("members",)
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedCompositeFieldContainer[MemberState]
    def __init__(self, members: _Optional[_Iterable[_Union[MemberState, _Mapping]]] = ...) -> None: ...

class MemberState(_message.Message):
    __slots__ = ("member", "address", "learner", "leads", "answers", "lag", "size_bytes", "retiring")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LEARNER_FIELD_NUMBER: _ClassVar[int]
    LEADS_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RETIRING_FIELD_NUMBER: _ClassVar[int]
    member: StoreMember
    address: str
    learner: bool
    leads: bool
    answers: bool
    lag: int
    size_bytes: int
    retiring: bool
    def __init__(self, member: _Optional[_Union[StoreMember, _Mapping]] = ..., address: _Optional[str] = ..., learner: _Optional[bool] = ..., leads: _Optional[bool] = ..., answers: _Optional[bool] = ..., lag: _Optional[int] = ..., size_bytes: _Optional[int] = ..., retiring: _Optional[bool] = ...) -> None: ...

class ChangeRequest(_message.Message):
    __slots__ = ("add_on", "remove", "replace", "transfer_to")
    ADD_ON_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_TO_FIELD_NUMBER: _ClassVar[int]
    add_on: str
    remove: str
    replace: Replace
    transfer_to: str
    def __init__(self, add_on: _Optional[str] = ..., remove: _Optional[str] = ..., replace: _Optional[_Union[Replace, _Mapping]] = ..., transfer_to: _Optional[str] = ...) -> None: ...

class Replace(_message.Message):
    __slots__ = ("member", "on")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    ON_FIELD_NUMBER: _ClassVar[int]
    member: str
    on: str
    def __init__(self, member: _Optional[str] = ..., on: _Optional[str] = ...) -> None: ...

class ChangeReply(_message.Message):
    __slots__ = ("done",)
    DONE_FIELD_NUMBER: _ClassVar[int]
    done: str
    def __init__(self, done: _Optional[str] = ...) -> None: ...
