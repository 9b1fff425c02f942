"""`@action`: how a function becomes an action, which is a Procrastinate task with an input and an output model."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args, get_type_hints

from procrastinate.job_context import JobContext
from procrastinate.tasks import Task
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from typing_extensions import override

from app.engine.app import App
from app.engine.limits import Limit
from app.engine.retry import Retry
from app.errors import InvalidInput, Rejected, UnknownAction
from app.observability import tracing
from app.runs.child import call_in_child, check_importable
from app.runs.context import Run, begin
from app.runs.problems import faults
from app.runs.queries import NewRun
from app.runs.values import check_storable

NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")

Perform = Callable[..., Any]
KeyPolicy = Literal["optional", "required"]
SubmitScope = Literal["runs:write", "admin"]

_UNTRACED = contextlib.nullcontext()


@dataclass(frozen=True)
class Action:
    """What the catalogue knows about one action."""

    name: str
    description: str
    input: type[BaseModel]
    output: TypeAdapter[Any]
    retry: Retry
    task: Task[..., Any, ...]
    call: Callable[[Run, dict[str, Any]], Awaitable[Any]]
    """Calls the function, with a run and params as they are stored; what it returns, in JSON."""
    timeout: float | None = None
    """Seconds that an attempt may take."""
    limit: Limit | None = None
    idempotency: KeyPolicy = "optional"
    """Whether a request for a run must come with an `Idempotency-Key`."""
    scope: SubmitScope = "runs:write"
    """What a request for a run must be allowed."""

    def check(self, params: dict[str, Any]) -> dict[str, Any]:
        """The params as they are stored: valid, in JSON, without what was not sent.

        Raises:
            InvalidInput: with a pointer for each fault, from the body's `/params`.
        """
        check_storable(params, "/params")
        try:
            checked = self.input.model_validate(params).model_dump(mode="json", exclude_unset=True)
        except ValidationError as error:
            raise InvalidInput(errors=faults(error, "/params")) from None
        # Again: what was text may have become a number that is not finite.
        check_storable(checked, "/params")
        return checked

    def ask(self, params: dict[str, Any]) -> NewRun:
        """A run of it, with its task's own options.

        Raises:
            InvalidInput: the params do not fit its input.
        """
        task = self.task
        return {
            "action": self.name,
            "params": self.check(params),
            "queue": task.queue,
            "priority": task.priority,
            "lock": task.lock,
            "queueing_lock": task.queueing_lock,
            "max_attempts": self.retry.max_attempts,
        }


class Actions(Mapping[str, Action]):
    """The catalogue of one Procrastinate app, and the decorator that fills it.

    ::

        action = Actions(procrastinate_app)

        @action("shout", retry=Retry(max_attempts=3))
        async def shout(run: Run, text: str) -> str:
            '''Say it louder.'''
            return text.upper()

    The function's parameters after `run` are the input model; a single parameter that is a Pydantic model *is* the
    input model. What it returns is validated and serialised by its return hint. `run` may be left out.

    A plain `def` is called in a child process, which can be killed: for work that blocks, or computes for long.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._actions: dict[str, Action] = {}

    def __call__(
        self,
        name: str | None = None,
        *,
        retry: Retry | None = None,
        timeout: float | None = None,
        limit: Limit | None = None,
        idempotency: KeyPolicy = "optional",
        scope: SubmitScope = "runs:write",
        **options: Any,
    ) -> Callable[[Perform], Task[..., Any, ...]]:
        """Make a function an action.

        Args:
            name: stored in rows, so it never changes meaning; the function's name if not given.
            retry: when to try again; up to five attempts with exponential backoff if not given.
            timeout: seconds that an attempt may take, unless it asks for more by `run.extend()`; then it fails, and is
                retried like any other failure. Not given: as long as it takes.
            limit: how many of its runs may run at once, and how often one may start, over all workers.
            idempotency: `required`, where a run too many costs too much: who submits by a request must send an
                `Idempotency-Key` with it. Schedules, parents and this program's own code need none.
            scope: `admin`, where a run touches what is everybody's: only an administrator's request may ask for one.
                Schedules, parents and this program's own code may, too.
            options: of `procrastinate.App.task`: queue, priority, lock, queueing_lock.

        Raises:
            ValueError: the name cannot be one, or the timeout, or the limit, the idempotency or the scope.
            TypeError: a parameter or the result has no type hint, or a plain function cannot be called in a child
                process.
        """

        _check_options(timeout, idempotency, scope)

        def decorate(function: Perform) -> Task[..., Any, ...]:
            made = self._made(name or function.__name__, function, retry or Retry(), options)
            return self._register(replace(made, timeout=timeout, limit=limit, idempotency=idempotency, scope=scope))

        return decorate

    def _register(self, action: Action) -> Task[..., Any, ...]:
        if action.timeout is not None:
            self._app.timeouts[action.name] = action.timeout
        if action.limit is not None:
            _check_limit(action.limit, action)
            self._app.limits[action.name] = action.limit
        self._actions[action.name] = action
        return action.task

    def _made(self, name: str, function: Perform, retry: Retry, options: dict[str, Any]) -> Action:
        if not NAME.fullmatch(name):
            raise ValueError(f"An action's name is 1 to 64 of a-z 0-9 _ . - and begins with a letter, not {name!r}.")
        signature = _Signature.of(name, function)
        if not signature.is_async:
            check_importable(name, function)

        async def call(run: Run, params: dict[str, Any]) -> Any:
            arguments = signature.arguments(run, params)
            result = await (function(*arguments) if signature.is_async else call_in_child(function, arguments))
            return signature.stored(result)

        async def perform(context: JobContext, /, **params: Any) -> Any:
            run = await begin(context, self.ask)
            try:
                async with run.traced() if tracing.is_on() else _UNTRACED:
                    return await call(run, params)
            finally:
                await run.written()

        perform.__wrapped__ = function  # pyright: ignore[reportFunctionMemberAccess]

        task = self._app.task(name=name, retry=retry, pass_context=True, **options)(perform)
        description = inspect.getdoc(function) or ""
        return Action(name, description, signature.input, signature.output, retry, task, call)

    def named(self, name: str) -> Action:
        """The action of that name.

        Raises:
            UnknownAction: there is none.
        """
        action = self._actions.get(name)
        if action is None:
            raise UnknownAction(detail="There is no action of that name. GET /actions lists those there are.")
        return action

    def ask(self, name: str, params: dict[str, Any]) -> NewRun:
        """A run of an action.

        Raises:
            UnknownAction: there is none of that name.
            InvalidInput: the params do not fit its input.
        """
        return self.named(name).ask(params)

    @override
    def __getitem__(self, name: str) -> Action:
        return self._actions[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._actions)

    @override
    def __len__(self) -> int:
        return len(self._actions)


@dataclass(frozen=True)
class _Signature:
    """How to call the function: with or without `run`, with a model or with its fields."""

    input: type[BaseModel]
    output: TypeAdapter[Any]
    fields: tuple[str, ...]
    takes_run: bool
    takes_model: bool
    is_async: bool

    @classmethod
    def of(cls, name: str, function: Perform) -> _Signature:
        hints = get_type_hints(function, include_extras=True)
        parameters = list(inspect.signature(function).parameters.values())
        for missing in [p.name for p in parameters if p.name not in hints] + ["return"] * ("return" not in hints):
            raise TypeError(f"Action {name!r}: {missing} needs a type hint.")
        takes_run = bool(parameters) and hints[parameters[0].name] is Run
        fields = parameters[1:] if takes_run else parameters
        takes_model = len(fields) == 1 and _is_model(hints[fields[0].name])
        model = hints[fields[0].name] if takes_model else _model(name, fields, hints)
        is_async = inspect.iscoroutinefunction(function)
        if takes_run and not is_async:
            raise TypeError(f"Action {name!r} takes its run, which only an async function can use: make it async.")
        output = TypeAdapter[Any](hints["return"])
        return cls(model, output, tuple(model.model_fields), takes_run, takes_model, is_async)

    def arguments(self, run: Run, params: dict[str, Any]) -> list[Any]:
        try:
            model = self.input.model_validate(params)
        except ValidationError as error:
            raise InvalidInput(errors=faults(error, "/params")) from None
        values = [model] if self.takes_model else [getattr(model, field) for field in self.fields]
        return [run, *values] if self.takes_run else values

    def stored(self, result: Any) -> Any:
        """The result as JSON that the database can keep.

        Raises:
            Rejected: it cannot be kept. The work is done, and doing it again would not help.
        """
        try:
            value = self.output.dump_python(result, mode="json")
            check_storable(value, "/result")
        except (ValueError, InvalidInput) as error:
            raise Rejected(f"What the action returned cannot be stored as JSON: {error}") from error
        return value


def _check_options(timeout: float | None, idempotency: KeyPolicy, scope: SubmitScope) -> None:
    if timeout is not None and timeout <= 0:
        raise ValueError(f"A timeout is a number of seconds greater than 0, not {timeout!r}.")
    if idempotency not in get_args(KeyPolicy):
        raise ValueError(f"Idempotency is 'optional' or 'required', not {idempotency!r}.")
    if scope not in get_args(SubmitScope):
        raise ValueError(f"The scope is 'runs:write' or 'admin', not {scope!r}.")


def _check_limit(limit: Limit, action: Action) -> None:
    limit.check()
    if limit.by is not None and limit.by not in action.input.model_fields:
        raise ValueError(f"The limit of action {action.name!r} is by {limit.by!r}, which is no parameter of it.")


def _is_model(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseModel)


def _model(name: str, parameters: list[inspect.Parameter], hints: dict[str, Any]) -> type[BaseModel]:
    fields: dict[str, Any] = {
        p.name: (hints[p.name], ... if p.default is inspect.Parameter.empty else p.default) for p in parameters
    }
    title = "".join(part.capitalize() for part in re.split(r"[_.-]", name)) + "Input"
    return create_model(title, __config__=ConfigDict(extra="forbid"), **fields)
