"""OpenFeature over the flags of this process: a provider that answers from memory, and a client bound to it.

Evaluation is synchronous and touches no I/O: the provider reads what the last KV watch reported. It costs about 15 us,
so `Flags` evaluates once for each change and keeps the result; no flag has targeting, so nothing else could change
it. Whoever wants OpenFeature's own API (hooks, details, change events) uses `Flags.client`.

Source: OpenFeature specification 0.8, sections 2 (providers) and 5 (events).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEventDetails
from openfeature.exception import FlagNotFoundError, TypeMismatchError
from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType, Reason
from openfeature.provider import AbstractProvider, Metadata

PROVIDER_NAME = "swarmbridge-kv"

_domains = (f"swarmbridge-{number}" for number in itertools.count())
"""OpenFeature keeps providers by domain for the whole process; each `Flags` has its own."""

ObjectValue = Sequence[FlagValueType] | Mapping[str, FlagValueType]


@dataclass(frozen=True, slots=True)
class Held:
    """One flag's value as it is in force. stored: from KV, otherwise the start value."""

    value: bool | Mapping[str, FlagValueType]
    stored: bool


class FlagsProvider(AbstractProvider):
    """Answers from `look_up` (by flag name, None where there is no such flag). Booleans and objects only."""

    def __init__(self, look_up: Callable[[str], Held | None]) -> None:
        super().__init__()
        self._look_up = look_up

    def changed(self, name: str) -> None:
        """Notify OpenFeature's subscribers, in its own threads."""
        self.emit_provider_configuration_changed(ProviderEventDetails(flags_changed=[name]))

    def get_metadata(self) -> Metadata:
        return Metadata(name=PROVIDER_NAME)

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        held = self._held(flag_key)
        if not isinstance(held.value, bool):
            raise TypeMismatchError("the flag is an object")
        return FlagResolutionDetails(held.value, reason=_reason(held), variant="on" if held.value else "off")

    def resolve_object_details(
        self, flag_key: str, default_value: ObjectValue, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[ObjectValue]:
        held = self._held(flag_key)
        if isinstance(held.value, bool):
            raise TypeMismatchError("the flag is a boolean")
        return FlagResolutionDetails(held.value, reason=_reason(held))

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        raise self._of_no_such_type(flag_key)

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        raise self._of_no_such_type(flag_key)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        raise self._of_no_such_type(flag_key)

    def _held(self, name: str) -> Held:
        held = self._look_up(name)
        if held is None:
            raise FlagNotFoundError("no such flag")
        return held

    def _of_no_such_type(self, name: str) -> TypeMismatchError:
        self._held(name)
        return TypeMismatchError("flags are booleans or objects")


def bind(provider: FlagsProvider) -> OpenFeatureClient:
    """Register the provider under a domain of its own. Returns: the client that asks it."""
    domain = next(_domains)
    api.set_provider_and_wait(provider, domain)
    return api.get_client(domain)


def _reason(held: Held) -> Reason:
    return Reason.STATIC if held.stored else Reason.DEFAULT
