"""Who may import whom: an exhaustive list. A module that is not in it fails, and so does an import that is not."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("sklearn_wsl_gpu", "wsl_worker")

#: Part → parts that it may import. A part is a module or a subpackage; inside a subpackage all may see each other.
CLIENT = {
    # Facts
    "errors": "",
    "arrays": "errors",
    "waiting": "",
    "saying": "",
    "tables": "",
    "workertext": "tables",
    "paths": "errors",
    "windows": "",
    "reporting": "errors tables",
    # Tables
    "estimators": "errors",
    "support": "errors estimators",
    "invocation": "estimators support",
    # What is said and where arrays lie: blind to each other
    "protocol": "errors arrays waiting",
    "pool": "errors arrays paths waiting windows",
    "state": "errors arrays estimators pool",
    "costfile": "costs windows",
    "carriers": "arrays costfile errors pool protocol",
    "abandoned": "errors pool protocol sockets",
    # Decisions
    "config": "errors estimators pool reporting waiting",
    "published": "",
    "predictions": "",
    "curves": "",
    "costs": "curves predictions published",
    "policy": "errors config predictions",
    "inheritance": "estimators",
    "inputs": "errors lending namespaces state",
    "namespaces": "_compat errors state",
    "_compat": "",
    # Shells
    "measuring": "config costfile costs predictions sessions",
    "workload": "config estimators invocation predictions",
    "newfile": "",
    "keys": "errors newfile windows",
    "sockets": "errors keys protocol",
    "launch": "costfile errors config keys newfile paths saying sockets windows",
    "lending": "arrays pool",
    "gather": "_compat arrays errors estimators inputs invocation lending namespaces pool protocol state support "
    "waiting",
    "greeting": "carriers errors launch pool protocol sockets",
    "room": "carriers errors pool protocol waiting",
    "session": "abandoned arrays carriers config errors gather greeting launch lending pool protocol room sockets",
    "sessions": "config errors launch pool saying session sockets",
    "allocating": "arrays config errors pool sessions waiting",
    "graphs": "_compat config errors estimators gather inheritance state",
    "progress": "_compat errors saying state",
    "adopt": "_compat arrays errors estimators gather graphs invocation pool session state",
    "dispatch": "_compat adopt config errors estimators gather graphs inheritance inputs invocation lending "
    "measuring policy predictions progress recording reporting session sessions state support workload",
    "recording": "config gather measuring predictions reporting saying session",
    "crossvalidation": "_compat adopt config errors estimators gather graphs inputs lending measuring policy "
    "predictions progress protocol pool recording reporting session sessions state support workload",
    "functions": "_compat adopt config errors estimators gather inputs measuring policy pool predictions protocol "
    "recording reporting session sessions state support workload",
    "importing": "",
    "following": "estimators importing",
    "parallel": "config launch patching reporting sessions",
    "patching": "_compat config crossvalidation dispatch errors estimators following functions invocation lending "
    "parallel state",
    "context": "_compat config errors measuring patching pool reporting sessions waiting",
    # Doors
    "enabling": "config context patching reporting",
    "autoload": "enabling errors following importing saying",
    "running": "autoload errors keys reporting windows",
    "standing": "costfile errors keys launch pool protocol sockets waiting windows",
    "doctor": "carriers config context errors keys launch paths pool protocol sessions standing windows",
    "cli": "config doctor errors launch running standing tables workertext",
    "__main__": "cli",
    "notebook": "context enabling errors",
    "testing": "",
    "expected_failures": "errors",
    "pytest_plugin": "config context enabling errors expected_failures",
    "__init__": "allocating context enabling errors notebook reporting sessions",
}

#: The same for the worker; what comes from the client's package is written with a dot before it.
WORKER = {
    "__init__": "",
    "link": ".protocol",
    "models": "",
    "surroundings": ".errors .protocol",
    "progress": "",
    "engines": ".errors .estimators .state .support",
    "sessions": ".arrays .errors .pool .protocol .waiting",
    "supervisor": "link",
    "telling": "sessions",
    "scheduler": "arrivals link sessions supervisor telling .errors .protocol .waiting",
    "fleet": "arrivals scheduler sessions",
    "listening": ".errors",
    "arrivals": ".arrays .pool",
    "account": "arrivals .carriers .errors .pool",
    "bulk": "account arrivals listening .carriers .errors .pool",
    "background": ".carriers .errors .protocol",
    "clientfile": ".carriers .errors .paths .pool",
    "files": "account background clientfile .carriers .errors .pool .protocol",
    "doors": "arrivals background bulk files .arrays .carriers .errors .pool .protocol",
    "front": "bulk doors fleet listening scheduler sessions .carriers .errors .protocol",
    "resident": "engines",
    "binding": "engines resident .errors .estimators .state .support",
    "fits": "binding progress resident .errors .estimators .state .support",
    "target": ".arrays .estimators .pool .protocol .state",
    "finished": "target .arrays .pool .protocol",
    "calls": "binding engines finished fits models progress surroundings target .errors .estimators .pool .protocol "
    ".state .support",
    "executor": "calls engines finished link models surroundings target .arrays .errors .estimators .pool .protocol",
    "testing": "engines .errors .estimators .state .support",
    "__main__": "bulk fleet front listening scheduler supervisor .errors .keys .pool",
}

#: Library → modules that may import it.
LIBRARIES = {
    "zmq": "sklearn_wsl_gpu.keys sklearn_wsl_gpu.sockets wsl_worker.front wsl_worker.__main__",
    "msgpack": "sklearn_wsl_gpu.protocol.codec",
    "numpy": """
        sklearn_wsl_gpu.allocating
        sklearn_wsl_gpu.adopt sklearn_wsl_gpu.gather sklearn_wsl_gpu.graphs sklearn_wsl_gpu.inputs
        sklearn_wsl_gpu.carriers.checksum sklearn_wsl_gpu.carriers.file_reply sklearn_wsl_gpu.doctor.probes
        sklearn_wsl_gpu.measuring sklearn_wsl_gpu.namespaces sklearn_wsl_gpu.crossvalidation sklearn_wsl_gpu.functions
        sklearn_wsl_gpu.pool.copying sklearn_wsl_gpu.pool.placing sklearn_wsl_gpu.pool.segment sklearn_wsl_gpu.room
        sklearn_wsl_gpu.state.checks sklearn_wsl_gpu.state.decoding sklearn_wsl_gpu.state.encoding
        sklearn_wsl_gpu.state.objects sklearn_wsl_gpu.state.splits sklearn_wsl_gpu.state.tables sklearn_wsl_gpu.testing
        wsl_worker.calls wsl_worker.executor wsl_worker.surroundings wsl_worker.target wsl_worker.testing
        wsl_worker.binding wsl_worker.resident wsl_worker.engines.base wsl_worker.engines.staging
        wsl_worker.engines.array_api wsl_worker.engines.cuml wsl_worker.engines.cuml.fills
        wsl_worker.engines.cuml.forests wsl_worker.engines.cuml.kinds wsl_worker.engines.cuml.parts
        wsl_worker.engines.cuml.svc wsl_worker.engines.cuml.target
        sklearn_wsl_gpu.support.cuml sklearn_wsl_gpu.support.entry sklearn_wsl_gpu.support.request
    """,
    "scipy": """
        sklearn_wsl_gpu.adopt sklearn_wsl_gpu.graphs sklearn_wsl_gpu.state.checks sklearn_wsl_gpu.state.encoding
        sklearn_wsl_gpu.testing
        sklearn_wsl_gpu.support.request wsl_worker.engines.array_api wsl_worker.testing
        wsl_worker.engines.cuml wsl_worker.engines.cuml.fills wsl_worker.engines.cuml.forests
        wsl_worker.engines.cuml.parts wsl_worker.engines.cuml.svc
    """,
    "sklearn": """
        sklearn_wsl_gpu._compat sklearn_wsl_gpu.adopt sklearn_wsl_gpu.doctor.probes sklearn_wsl_gpu.patching
        sklearn_wsl_gpu.state.objects
        sklearn_wsl_gpu.state.scorers sklearn_wsl_gpu.testing wsl_worker.binding wsl_worker.fits wsl_worker.progress
        wsl_worker.engines.array_api wsl_worker.engines.scores wsl_worker.surroundings wsl_worker.testing
        wsl_worker.engines.cuml.fills wsl_worker.engines.cuml.forests wsl_worker.engines.cuml.svc
        wsl_worker.engines.cuml.target
    """,
    "cuml": "wsl_worker.engines.cuml wsl_worker.engines.cuml.kinds",
    "cupy": "wsl_worker.engines.cuml.fills wsl_worker.engines.cuml.kinds wsl_worker.engines.cuml.memory",
    "cupyx": "wsl_worker.engines.cuml.fills",
    "rmm": "wsl_worker.engines.cuml.memory",
    "joblib": "sklearn_wsl_gpu.state.objects wsl_worker.surroundings",
    "pytest": "sklearn_wsl_gpu.pytest_plugin wsl_worker.testing",
    "packaging": "sklearn_wsl_gpu.expected_failures",
    "IPython": "sklearn_wsl_gpu.notebook",
}

#: What only the client needs: the worker never imports it, directly or not.
CLIENT_SHELLS = {
    "abandoned", "allocating",
    "adopt", "autoload", "config", "context", "crossvalidation", "dispatch", "enabling", "functions", "gather",
    "graphs", "inheritance", "greeting", "launch", "lending", "measuring", "parallel", "patching", "room", "session",
    "sessions", "sockets",
}  # fmt: skip
#: What must never import scikit-learn, because it has to start at once.
WITHOUT_SKLEARN = {
    "sklearn_wsl_gpu.protocol", "sklearn_wsl_gpu.pool", "sklearn_wsl_gpu.arrays", "sklearn_wsl_gpu.errors",
    "sklearn_wsl_gpu.carriers", "sklearn_wsl_gpu.waiting",
    "wsl_worker.background", "wsl_worker.bulk", "wsl_worker.clientfile", "wsl_worker.doors", "wsl_worker.files",
     "wsl_worker.fleet", "wsl_worker.front",
    "wsl_worker.scheduler", "wsl_worker.sessions",
    "wsl_worker.supervisor", "wsl_worker.link", "wsl_worker.__main__",
}  # fmt: skip
HEAVY = {"sklearn", "scipy", "joblib"}
#: Libraries that make objects of a class that the bytes name.
UNSAFE = {"pickle", "marshal", "shelve", "cloudpickle", "dill", "copyreg"}


class Imports(NamedTuple):
    """What a module imports: anywhere, and those among it that run when it is imported."""

    anywhere: frozenset[str]
    at_import: frozenset[str]


@cache
def _modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*.py")):
            name = ".".join([package, *path.relative_to(root).with_suffix("").parts])
            found[name.removesuffix(".__init__") if path.parent != root else name] = path
    return found


def _is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _walk(node: ast.AST, running: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        inside = running and not _is_for_type_checkers(child) and not isinstance(child, ast.FunctionDef)
        yield child, inside
        yield from _walk(child, inside)


@cache
def _imports(module: str) -> Imports:
    anywhere, at_import = set(), set()
    for node, running in _walk(ast.parse(_modules()[module].read_text()), running=True):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            assert node.module is not None
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in _modules() else node.module for name in inner]
        anywhere.update(names)
        at_import.update(names if running else ())
    return Imports(frozenset(anywhere), frozenset(at_import))


def _part(module: str) -> tuple[str, str]:
    """Return package and part of a module's name."""
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0] or "__init__"


def _allowed(module: str) -> set[str]:
    package, part = _part(module)
    if package == "sklearn_wsl_gpu":
        return {f"sklearn_wsl_gpu.{name}" for name in CLIENT[part].split()} | {f"sklearn_wsl_gpu.{part}"}
    names = WORKER[part].split()
    return {f"sklearn_wsl_gpu{name}" if name[0] == "." else f"wsl_worker.{name}" for name in [*names, part]}


def test_the_lists_name_every_module_and_no_other() -> None:
    parts = {_part(module) for module in _modules()} | {("wsl_worker", "testing")}

    assert {part for package, part in parts if package == "sklearn_wsl_gpu"} == CLIENT.keys()
    assert {part for package, part in parts if package == "wsl_worker"} == WORKER.keys()


def test_a_module_imports_only_what_the_lists_allow() -> None:
    found = {}
    for module in _modules():
        own = {".".join(_part(name)) for name in _imports(module).anywhere if name.partition(".")[0] in PACKAGES}
        found[module] = own - _allowed(module)

    assert _not_empty(found) == {}


def test_a_library_is_imported_only_where_the_list_says() -> None:
    found = {}
    for module in _modules():
        libraries = _tops(_imports(module).anywhere) - set(PACKAGES) - set(sys.stdlib_module_names)
        found[module] = {library for library in libraries if module not in LIBRARIES.get(library, "").split()}

    assert _not_empty(found) == {}


def test_nothing_that_makes_objects_of_bytes_is_imported() -> None:
    assert _not_empty({module: _tops(_imports(module).anywhere) & UNSAFE for module in _modules()}) == {}


def test_the_worker_never_imports_the_clients_shells() -> None:
    found = {}
    for module in _modules():
        if module.startswith("wsl_worker"):
            shared = {name for name in _reachable(module) if name.startswith("sklearn_wsl_gpu.")}
            found[module] = {name for name in shared if _part(name)[1] in CLIENT_SHELLS}

    assert _not_empty(found) == {}


def test_the_client_never_imports_the_worker() -> None:
    found = {module: _tops(_imports(module).anywhere) & {"wsl_worker"} for module in _modules()}

    assert _not_empty({module: tops for module, tops in found.items() if module.startswith("sklearn_wsl_gpu")}) == {}


def test_what_must_start_at_once_does_without_scikit_learn() -> None:
    found = {}
    for module in _modules():
        if ".".join(_part(module)) in WITHOUT_SKLEARN:
            reached = {module} | _reachable(module)
            found[module] = {name for name in reached if _tops(_imports(name).at_import) & HEAVY}

    assert _not_empty(found) == {}


def test_no_two_modules_import_each_other_while_they_are_imported() -> None:
    assert {module for module in _modules() if module in _reachable(module)} == set()


def test_only_one_file_assigns_to_the_classes_of_scikit_learn() -> None:
    setters = {
        module
        for module, path in _modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr")
    }

    # decoding gives a sparse matrix, which is its own, the very index arrays that came.
    assert setters == {"sklearn_wsl_gpu.patching", "sklearn_wsl_gpu.state.decoding"}


def test_a_module_fits_on_a_few_screens() -> None:
    lines = {module: len(path.read_text().splitlines()) for module, path in _modules().items()}

    assert {module: count for module, count in lines.items() if count > 400} == {}


def _tops(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def _not_empty(found: dict[str, set[str]]) -> dict[str, set[str]]:
    return {module: names for module, names in found.items() if names}


def _reachable(module: str) -> set[str]:
    found: set[str] = set()
    waiting = [module]
    while waiting:
        new = (_imports(waiting.pop()).at_import & _modules().keys()) - found
        found |= new
        waiting += new
    return found
