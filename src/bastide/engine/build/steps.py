"""One instruction after another: what a stage's state becomes, from the cache or by doing the work."""

from __future__ import annotations

import os
import posixpath
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import msgspec

from bastide.engine.build import cache as caching
from bastide.engine.build import fetch
from bastide.engine.build.cache import Cache, Row
from bastide.engine.build.context import Context
from bastide.engine.build.copying import Look, Placer
from bastide.engine.build.layers import Workshop
from bastide.engine.build.mounts import Mounts, digest
from bastide.engine.build.options import Options
from bastide.engine.build.output import Voice
from bastide.engine.build.running import Runner
from bastide.engine.build.sources import Found, Tree
from bastide.engine.build.state import State, apply
from bastide.engine.clock import now
from bastide.engine.layers import Layers, Lease
from bastide.host.paths import root_of
from bastide.host.syscalls import blocking
from bastide.images.changes import Packed
from bastide.images.dockerfile import instructions as dockerfile
from bastide.images.dockerfile.lines import Heredoc, heredoc_starts
from bastide.images.dockerfile.mounts import StepMount, parse_mount
from bastide.images.dockerfile.stages import PREDEFINED, Dockerfile
from bastide.images.dockerfile.words import Expander
from bastide.model.container import Mount
from bastide.model.errors import InvalidArgument
from bastide.model.image import Descriptor, History, Image
from bastide.runtime.users import resolve

Work = Callable[[], Awaitable[Packed | None]]


class Origins(Protocol):
    """Where other trees come from: stages of this build, and images."""

    async def root(self, name: str, stage: int, tools: Tools) -> Path:
        """The root of the stage called `name`, seen from stage number `stage`, or of the image."""


class Tools:
    """What the steps of one build share."""

    def __init__(
        self,
        options: Options,
        parsed: Dockerfile,
        context: Context,
        cache: Cache,
        cache_images: Sequence[Image],
        layers: Layers,
        lease: Lease,
        workshop: Workshop,
        runner: Runner,
        mounts: Mounts,
        origins: Origins,
        platform_variables: dict[str, str],
        scratch: Path,
    ) -> None:
        self.options, self.parsed, self.context = options, parsed, context
        self.cache, self.cache_images, self.layers, self.lease = cache, cache_images, layers, lease
        self.workshop, self.runner, self.mounts, self.origins = workshop, runner, mounts, origins
        self.platform_variables, self.scratch = platform_variables, scratch
        self.used: set[str] = set(parsed.used)
        """Build arguments that somebody took."""


class Steps:
    """The steps of one stage."""

    def __init__(self, tools: Tools, stage: int, voice: Voice) -> None:
        self._tools, self._stage, self._voice = tools, stage, voice

    async def take(self, state: State, instruction: dockerfile.Instruction) -> State:
        """The state after an instruction. Raises InvalidArgument and whatever the work raises."""
        expander = state.expander(self._tools.parsed.escape)
        if isinstance(instruction, dockerfile.Arg):
            return await self._argument(state, instruction, expander)
        if isinstance(instruction, dockerfile.Copy):
            return await self._copy(state, instruction, expander)
        if isinstance(instruction, dockerfile.Run):
            return await self._run(state, instruction, expander)
        after, said = apply(state, instruction, expander)
        if isinstance(instruction, dockerfile.Workdir):
            return await self._commit(after, _remark(state, said), self._make_folder(after))
        return await self._commit(after, _remark(state, said), None)

    async def _commit(self, state: State, created_by: str, work: Work | None, *parts: str) -> State:
        """The state with one more step in its history, and its layer when `work` makes one.

        `parts` are what the work takes from beyond the state and the words of the step.
        """
        tools = self._tools
        name = caching.key(state.chain, created_by, *parts)
        row = None if tools.options.no_cache else tools.cache.find(name) or await self._from_images(state, created_by)
        if row is None:
            packed = await work() if work is not None else None
            row = Row(
                parent=state.chain,
                instruction=created_by,
                created=now(),
                layer=packed.descriptor if packed else None,
                diff_id=packed.diff_id if packed else "",
                size=packed.size if packed else 0,
            )
            tools.cache.put(name, row)
        else:
            if row.layer is not None:
                await tools.lease.add(row.layer.digest, row.diff_id)
            self._voice.say(" ---> Using cache\n")
        return _with_step(state, name, created_by, row)

    async def _from_images(self, state: State, created_by: str) -> Row | None:
        """The step in an image of `--cache-from`."""
        found = caching.from_images(self._tools.cache_images, state.history, state.diff_ids, created_by)
        if found is None:
            return None
        step, layer, diff_id = found
        return Row(
            parent=state.chain,
            instruction=created_by,
            created=step.created or now(),
            layer=layer,
            diff_id=diff_id,
            size=self._tools.layers.size([diff_id]) if diff_id else 0,
        )

    # -- ARG, WORKDIR --------------------------------------------------------------------------

    async def _argument(self, state: State, said: dockerfile.Arg, expander: Expander) -> State:
        variables = dict(state.variables)
        texts = []
        for name, default in said.pairs:
            value = expander.word(default) if default is not None else None
            texts.append(name if value is None else f"{name}={value}")
            chosen = self._value(name, value)
            if chosen is not None:
                variables[name] = chosen
                expander.variables = variables | state.env
        after = msgspec.structs.replace(state, variables=variables)
        return await self._commit(after, _remark(state, f"ARG {' '.join(texts)}"), None)

    def _value(self, name: str, default: str | None) -> str | None:
        """Given for this build, its default, as declared before the first FROM, or of the platform."""
        tools = self._tools
        if name in tools.options.arguments:
            tools.used.add(name)
            given = tools.options.arguments[name]
            return given if given is not None else default
        if default is not None:
            return default
        declared = tools.parsed.arguments.get(name)
        return declared if declared is not None else tools.platform_variables.get(name)

    def _make_folder(self, state: State) -> Work:
        async def work() -> Packed | None:
            workshop = self._tools.workshop
            async with workshop.snapshot(state.diff_ids) as (key, root):
                await blocking(_ensure_folder, root, state.config.working_dir)
                return await workshop.take(key)

        return work

    # -- RUN -----------------------------------------------------------------------------------

    async def _run(self, state: State, said: dockerfile.Run, expander: Expander) -> State:
        words = [*state.shell, *said.words] if said.shell else list(said.words)
        declared = {name: value for name, value in state.variables.items() if name not in state.env}
        shown_arguments = {name: value for name, value in declared.items() if name not in PREDEFINED}
        for name in PREDEFINED & self._tools.options.arguments.keys():
            self._tools.used.add(name)
            value = self._tools.options.arguments[name]
            if value is not None and name not in state.env:
                declared[name] = value
        wanted = [parse_mount(expander.word(text)) for text in said.mounts]
        created_by = " ".join(words)
        if shown_arguments:
            listed = " ".join(f"{name}={value}" for name, value in sorted(shown_arguments.items()))
            created_by = f"|{len(shown_arguments)} {listed} {created_by}"
        arguments = msgspec.json.encode(sorted(shown_arguments.items())).decode()
        parts = [*said.mounts, said.network, said.script, arguments, *words]
        for mount in wanted:
            if mount.kind == "bind":
                parts.append(await self._bind_digest(mount.origin, mount.source))
        env = [*(state.config.env or []), *(f"{name}={value}" for name, value in declared.items())]
        return await self._commit(state, created_by, self._do_run(state, said, words, env, wanted), *parts)

    async def _bind_digest(self, origin: str, source: str) -> str:
        if not origin:
            return await blocking(digest, self._tools.context.root, source)
        root = await self._origin(origin)

        def look() -> str:
            with root_of(root) as fd:
                return digest(fd, source)

        return await blocking(look)

    async def _origin(self, name: str) -> Path:
        return await self._tools.origins.root(name, self._stage, self._tools)

    def _do_run(
        self,
        state: State,
        said: dockerfile.Run,
        words: Sequence[str],
        env: Sequence[str],
        wanted: list[StepMount],
    ) -> Work:
        async def work() -> Packed | None:
            tools = self._tools
            async with AsyncExitStack() as until:
                made, added = await tools.mounts.prepare(
                    wanted, state.config.working_dir, tools.context.path, self._origin, until
                )
                if said.script:
                    path = await tools.mounts.script(said.script)
                    made.append(Mount(type="bind", source=str(path), target=said.words[-1], read_only=True))
                variables = [*env, *(f"{name}={value}" for name, value in added.items())]
                return await tools.runner.run(state, words, variables, made, said.network, self._voice)

        return work

    # -- COPY, ADD -----------------------------------------------------------------------------

    async def _copy(self, state: State, said: dockerfile.Copy, expander: Expander) -> State:
        async with AsyncExitStack() as until:
            goods = await self._goods(said, expander, until)
            target = _target(expander.word(said.target), state.config.working_dir)
            many = sum(len(found) for _, found in goods.trees) + len(goods.documents) > 1
            if many and not target.endswith("/"):
                verb = "ADD" if said.add else "COPY"
                raise InvalidArgument(
                    f"When using {verb} with more than one source file, the destination must be a directory and end "
                    "with a /"
                )
            owner, mode = expander.word(said.owner), expander.word(said.mode)
            created_by = _remark(state, f"{'ADD' if said.add else 'COPY'} {goods.name()} in {target} ")
            chosen = [f"{owner=}", f"{mode=}", f"{said.link=}", f"{said.parents=}"]
            look = _Look(owner, _mode(mode), foreign=bool(said.origin))
            return await self._commit(
                state, created_by, self._do_copy(state, said, goods, target, look), *chosen, *goods.digests
            )

    async def _goods(self, said: dockerfile.Copy, expander: Expander, until: AsyncExitStack) -> _Goods:
        """Everything that a step copies, found and summed up."""
        goods = _Goods(documents=[])
        exclude = [expander.word(pattern) for pattern in said.exclude]
        documents = {document.name: document for document in said.documents}
        for source in said.sources:
            starts = heredoc_starts(source, self._tools.parsed.escape)
            if starts and starts[0].name in documents:
                goods.documents.append(_expanded(documents[starts[0].name], expander))
                continue
            name = expander.word(source)
            if said.add and (fetch.is_url(name) or fetch.is_git(name)):
                goods.trees.append(await self._fetched(name, said, until))
                continue
            tree = await self._tree(said.origin, exclude, until)
            goods.trees.append((tree, await blocking(tree.find, name)))
        if said.checksum and not any(isinstance(tree, _Fetched) for tree, _ in goods.trees):
            raise InvalidArgument("checksum can't be specified for a source that is not a URL")
        await goods.sum_up()
        return goods

    async def _tree(self, origin: str, exclude: Sequence[str], until: AsyncExitStack) -> Tree:
        if not origin:
            return Tree(self._tools.context.root, exclude, owners=False)
        fd = os.open(await self._origin(origin), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        until.callback(os.close, fd)
        return Tree(fd, exclude)

    async def _fetched(self, source: str, said: dockerfile.Copy, until: AsyncExitStack) -> tuple[Tree, list[Found]]:
        """A file or repository from elsewhere, in a folder of its own."""
        folder = self._tools.scratch / os.urandom(8).hex()
        await blocking(folder.mkdir, parents=True, mode=0o700)
        if fetch.is_git(source):
            if said.checksum:
                raise InvalidArgument("a checksum can't be specified for a git source: name its commit")
            await fetch.clone(source, folder, keep_git=said.keep_git)
            found = Found("", "")
        else:
            fetched = await fetch.download(source, folder, said.checksum)
            found = Found(fetched.path.name, fetched.name)
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        until.callback(os.close, fd)
        return _Fetched(fd, owners=False), [found]

    def _do_copy(self, state: State, said: dockerfile.Copy, goods: _Goods, target: str, look: _Look) -> Work:
        async def work() -> Packed | None:
            workshop = self._tools.workshop
            # A linked copy knows nothing of what is below it: it stays the same when that changes.
            below = () if said.link else state.diff_ids
            names = await workshop.view(state.diff_ids) if said.link and look.named else None
            async with workshop.snapshot(below) as (key, root):
                await blocking(_place_all, root, names or root, said, goods, target, look)
                return await workshop.take(key)

        return work


class _Fetched(Tree):
    """A tree that was fetched: its files are not unpacked."""


class _Look:
    """Whose the copies will be, as it was asked for."""

    def __init__(self, owner: str, mode: int | None, *, foreign: bool) -> None:
        self._owner, self._mode, self._foreign = owner, mode, foreign

    @property
    def named(self) -> bool:
        """Whether names must be looked up in the image."""
        return any(part and not part.isdigit() for part in self._owner.split(":"))

    def found(self, names: Path) -> Look:
        """With names looked up below a root. Raises InvalidArgument."""
        if not self._owner:
            # What comes from a stage or image keeps its owner; what comes from the context is root's.
            return Look(mode=self._mode) if self._foreign else Look(uid=0, gid=0, mode=self._mode)
        user, _, group = self._owner.partition(":")
        with root_of(names) as fd:
            if group:
                identity = resolve(fd, f"{user}:{group}")
            else:
                identity = resolve(fd, user)
                # A user alone gives the group of the same name or, failing that, number (Dockerfile reference).
                try:
                    identity = resolve(fd, f"{user}:{user}")
                except InvalidArgument:
                    identity = msgspec.structs.replace(identity, gid=identity.uid)
        return Look(uid=identity.uid, gid=identity.gid, mode=self._mode, chosen=True)


class _Goods:
    """What a COPY copies: files found in trees, and here-documents."""

    def __init__(self, documents: list[Heredoc]) -> None:
        self.trees: list[tuple[Tree, list[Found]]] = []
        self.documents = documents
        self.digests: list[str] = []
        self._kinds: list[str] = []

    async def sum_up(self) -> None:
        """Digest everything."""
        for tree, found in self.trees:
            for one in found:
                summed = await blocking(tree.digest, one)
                kind = await blocking(_kind, tree, one)
                self._kinds.append(kind)
                path = one.name if isinstance(tree, _Fetched) else one.path
                self.digests.append(f"{kind}:{path}:{summed}")
        for document in self.documents:
            self._kinds.append("file")
            self.digests.append(caching.key("document", document.name, document.content))

    def name(self) -> str:
        """What history calls it: `file:HASH`, `dir:HASH` or `multi:HASH`."""
        kind = self._kinds[0] if len(self._kinds) == 1 else "multi"
        return f"{kind}:{caching.key('', *self.digests).removeprefix('sha256:')}"


def _kind(tree: Tree, found: Found) -> str:
    fd, status = tree.open(found)
    os.close(fd)
    return "dir" if status.st_mode & 0o170000 == 0o040000 else "file"


def _place_all(root: Path, names: Path, said: dockerfile.Copy, goods: _Goods, target: str, asked: _Look) -> None:
    look = asked.found(names)
    with root_of(root) as fd:
        placer = Placer(fd, look)
        try:
            for tree, found in goods.trees:
                unpack = said.add and not isinstance(tree, _Fetched)
                for one in found:
                    placer.place(tree, one, target, unpack=unpack, parents=said.parents)
            for document in goods.documents:
                placer.document(target, document.name, document.content.encode(), time.time_ns())
        finally:
            placer.close()


def _ensure_folder(root: Path, path: str) -> None:
    with root_of(root) as fd:
        os.close(Placer(fd, Look(uid=0, gid=0)).folder(path))


def _expanded(document: Heredoc, expander: Expander) -> Heredoc:
    if not document.expand:
        return document
    return msgspec.structs.replace(document, content=expander.text(document.content))


def _target(text: str, workdir: str) -> str:
    """Where a copy goes, absolute; a slash at its end stays."""
    if not text or "\0" in text:
        raise InvalidArgument("COPY needs a destination")
    slash = text.endswith(("/", "/.")) or text == "."
    clean = posixpath.normpath(posixpath.join("/", workdir, text))
    clean = "/" + clean.lstrip("/")
    return clean.rstrip("/") + "/" if slash else clean


def _mode(text: str) -> int | None:
    if not text:
        return None
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise InvalidArgument(f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")
    return mode


def _remark(state: State, text: str) -> str:
    """The words of a step that runs nothing, as Docker's history has them."""
    return f"{' '.join(state.shell)} #(nop)  {text}"


def _with_step(state: State, name: str, created_by: str, row: Row) -> State:
    step = History(
        created=row.created,
        created_by=created_by,
        author=state.author or None,
        empty_layer=None if row.layer else True,
    )
    layers: tuple[Descriptor, ...] = (*state.layers, row.layer) if row.layer else state.layers
    diff_ids = (*state.diff_ids, row.diff_id) if row.layer else state.diff_ids
    return msgspec.structs.replace(
        state,
        # What a step made is part of what follows from it: a step that is run again may make something else.
        chain=caching.key(name, row.diff_id, msgspec.json.encode(state.config).decode()),
        layers=layers,
        diff_ids=diff_ids,
        history=(*state.history, step),
        created=row.created,
    )
