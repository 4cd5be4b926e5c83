"""A real SLURM on this machine, for trying out and for tests: one controller, and a slurmd for each virtual node.

    harness devcluster up                  # prints the SLURM_CONF to export
    harness devcluster down

Nodes, processors, memory and GPUs are claims: SLURM counts them, nothing enforces them. GPUs are links to /dev/null.
The nodes are named 127.0.0.11, 127.0.0.12, ..., so that the name of a node, as in MASTER_ADDR, resolves anywhere. The
partitions are `normal` (the default), `preemptible` (requeued after a grace of 10 s) and `high`; both others preempt
`preemptible`. Works as root and as an ordinary user, whose own jobs alone can run then. Needs Debian's packages, no
systemd and no cgroups.

Everything lies under one folder, the root: etc/ (SLURM_CONF), log/, and state that a new start wipes.
"""

import contextlib
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BadCommand, NotWritable, Unavailable, UnknownName

PACKAGES = {
    "slurmctld slurmd slurm-client munge": ("slurmctld", "slurmd", "sinfo", "scontrol", "munged"),
    "slurmdbd mariadb-server-core": ("slurmdbd", "mariadbd", "sacct"),  # for accounting
}
SBIN = ("/usr/sbin", "/sbin")  # daemons are there, and not on an ordinary user's PATH
MARK = "HARNESS_DEVCLUSTER"  # in the environment of our daemons, beside whom a pid file may name a stranger
WIPED = ("state", "spool", "run", "dev", "db")
START = 30.0  # seconds until every node must be idle
LONGEST = "/spool/127.0.0.111/127.0.0.111_67043328.4294967291"  # the longest path of a unix socket under the root

SLURM_CONF = """\
ClusterName=devcluster
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SrunPortRange={srun_ports}
CommunicationParameters={listen}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# a requeued job waits for cred_expire + 1 s; below 5 is invalid and means 120
AuthInfo=socket={root}/run/munged.sock,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd.%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/%n/slurmd.log
ProctrackType=proctrack/linuxproc
# task/affinity lays tasks out on the real processors, and fails where nodes claim more
TaskPlugin=task/none
MpiDefault=none
ReturnToService=1
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{signal}
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=2
KillWait=1
SlurmdTimeout=10
# small, it would drain a node whose controller is away
UnkillableStepTimeout=120
MinJobAge=300
MaxArraySize=1001
MaxJobCount=20000
FirstJobId={first_job}
AccountingStorageType=accounting_storage/{storage}
AccountingStorageHost=localhost
AccountingStoragePort={storage_port}
AccountingStoragePass={root}/run/munged.sock
GresTypes=gpu
NodeName={nodes} NodeAddr=127.0.0.1 NodeHostname={host} Port={ports} CPUs={cpus} RealMemory=64000 {gres} State=UNKNOWN
PartitionName=DEFAULT Nodes=ALL State=UP DefaultTime=10 MaxTime=INFINITE DefMemPerCPU=100
PartitionName=normal Default=YES PriorityTier=5 PreemptMode=OFF
PartitionName=preemptible PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high PriorityTier=10 PreemptMode=OFF
"""
SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={root}/run/munged.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={storage_port}
CommunicationParameters={listen}
SlurmUser={user}
PidFile={root}/run/slurmdbd.pid
LogFile={root}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
CommitDelay=0
"""
DATABASE = """\
create database mysql;
use mysql;
{tables}
flush privileges;
create user 'slurm'@'localhost' identified by 'slurm';
grant all on slurm_acct_db.* to 'slurm'@'localhost';
"""


def default_root() -> Path:
    """Where a cluster lies if nobody says: short, as unix sockets need it, and one per user."""
    return Path(f"/tmp/harness-devcluster-{os.getuid()}")


@dataclass(frozen=True)
class Devcluster:
    """A cluster that was started, by this process or another. Make one with `up` or `at`."""

    root: Path
    port: int  # of the controller; slurmdbd has the next one, then come the nodes
    nodes: tuple[str, ...]
    accounting: bool

    @property
    def env(self) -> dict[str, str]:
        """What SLURM's clients need in their environment."""
        return {"SLURM_CONF": str(self.root / "etc/slurm.conf")}

    @property
    def daemons(self) -> dict[str, int]:
        """Name -> TCP port (0: none), in the order in which they start."""
        database = {"mariadbd": 0, "slurmdbd": self.port + 1} if self.accounting else {}
        slurmds = {f"slurmd.{node}": self.port + 2 + i for i, node in enumerate(self.nodes)}
        return {"munged": 0} | database | {"slurmctld": self.port} | slurmds

    @classmethod
    def at(cls, root: Path) -> "Devcluster":
        """The cluster at root. Errors: Unavailable if none of its daemons runs."""
        if (cluster := cls.stored(root)) and any(cluster.running().values()):
            return cluster
        raise Unavailable(f"no devcluster runs at {root.resolve()}; `harness devcluster up` starts one")

    @classmethod
    def stored(cls, root: Path) -> "Devcluster | None":
        """The cluster that was last started at root, dead or alive; None if there was none."""
        root = root.resolve()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            stored = json.loads((root / "devcluster.json").read_text())
            return cls(root, stored["port"], tuple(stored["nodes"]), stored["accounting"])
        return None

    @classmethod
    def up(
        cls,
        root: Path,
        *,
        nodes: int = 4,
        cpus: int = 4,
        gpus: int = 2,
        accounting: bool = False,
        preempt_signal: bool = True,
        port: int | None = None,
    ) -> "Devcluster":
        """Start a cluster with no jobs, and return when its nodes are idle.

        nodes: 1 to 64. cpus, gpus: per node. accounting: with a database, for `sacct`; without, `sacct` fails.
        preempt_signal: a job that is preempted gets the signal it asked for, not SIGTERM. port: the first of 67 TCP
        ports that must be free (None: some between 11000 and 20000), and of 400 for srun.

        Errors: BadCommand (numbers, a root that is too long or holds something else), NotWritable, Unavailable
        (packages missing, already running, port in use, a daemon that does not start; nothing is left running).
        """
        root = root.resolve()
        _check(root, nodes, cpus, gpus, accounting)
        with _claimed(port) as port:
            names = tuple(f"127.0.0.{11 + i}" for i in range(nodes))
            cluster = cls(root, port + 1, names, accounting)  # the first port is the claim
            try:
                cluster._write(cpus, gpus, preempt_signal)
            except OSError as error:
                raise NotWritable(f"cannot write {root}: {error.strerror}; choose another root") from error
            try:
                for daemon in cluster.daemons:
                    cluster.start(daemon)
                cluster._wait(lambda: cluster._idle() == nodes, "slurmctld", f"{nodes} idle nodes")
            except BaseException:
                cluster.down()
                raise
        return cluster

    def down(self) -> None:
        """Cancel the jobs, stop the daemons, and kill what is left of jobs after 2 seconds. Keeps etc/ and log/."""
        answers = self._pid("munged") and self._pid("slurmctld")
        if answers and (jobs := self._client("squeue", "-h", "-o", "%A").split()):
            self._client("scancel", *sorted(set(jobs)))
            _until(lambda: not self._client("squeue", "-h"), 2)
        self._stop("slurmctld")  # first, so that it starts no job anew
        self._stop(*(f"slurmd.{node}" for node in self.nodes), grace=0.5)  # with a job it would wait for the controller
        self.kill_jobs()
        for name in ("slurmdbd", "mariadbd", "munged"):
            self._stop(name)
        for name in WIPED:
            shutil.rmtree(self.root / name, ignore_errors=True)

    def running(self) -> dict[str, bool]:
        """Daemon -> is it alive?"""
        return {name: self._pid(name) is not None for name in self.daemons}

    def start(self, daemon: str) -> None:
        """Start a daemon that was killed, and wait until it listens; one that runs is left alone.

        Errors: UnknownName; Unavailable, with the end of its log, if it does not start within 30 seconds.
        """
        if self._known(daemon):
            return
        if daemon == "mariadbd" and not (self.root / "db").exists():
            (self.root / "db").mkdir()
            files = [Path(f"/usr/share/mysql/mysql_system_tables{part}.sql") for part in ("", "_data")]
            tables = DATABASE.format(tables="\n".join(file.read_text() for file in files))
            self._launch(daemon, ["mariadbd", *self._database_options(), "--bootstrap"], tables)
        root, run, (kind, _, node) = self.root, self.root / "run", daemon.partition(".")
        if kind == "munged":
            words = [
                f"--key-file={root}/munge.key",
                f"--seed-file={run}/munged.seed",
                f"--log-file={self._log(daemon)}",
            ]
            words = ["munged", *words, f"--socket={run}/munged.sock", f"--pid-file={run}/munged.pid"]
        elif kind == "mariadbd":
            words = [f"--socket={run}/mariadbd.sock", "--skip-networking", f"--pid-file={run}/mariadbd.pid"]
            words = ["setsid", "--fork", "mariadbd", *self._database_options(), *words]
        else:
            words = [kind, "-N", node] if node else [kind]
        self._launch(daemon, words)
        port, path = self.daemons[daemon], run / f"{kind}.sock"
        self._wait(lambda: bool(self._pid(daemon)) and (not _free(port) if port else path.is_socket()), daemon)

    def kill(self, daemon: str) -> None:
        """SIGKILL a daemon, to see what its loss does; returns when it is dead. Errors: UnknownName."""
        if pid := self._known(daemon):
            _end([pid], signal.SIGKILL)

    def kill_node(self, node: str) -> None:
        """What a machine that loses power does: its slurmd and all processes of its jobs are gone.

        SLURM notices after 25 to 30 seconds, and requeues the jobs. Errors: UnknownName.
        """
        if node not in self.nodes:
            raise UnknownName("node", node, self.nodes)
        self.kill(f"slurmd.{node}")
        self.kill_jobs(node)

    def kill_jobs(self, *nodes: str) -> None:
        """SIGKILL all processes of jobs, on these nodes or all, and what they start meanwhile."""
        for _ in range(50):
            if not (pids := self.job_processes(*nodes)):
                break
            _end(pids, signal.SIGKILL)

    def job_processes(self, *nodes: str) -> list[int]:
        """Ids of all processes of jobs, on these nodes or all: slurmstepds, their descendants, and orphans.

        A slurmstepd works in its node's folder of logs; an orphan is found by its environment. The shell of an
        `salloc` is none of them: it has no SLURMD_NODENAME.
        """
        nodes = nodes or self.nodes
        folders = {str(self.root / "log" / node) for node in nodes}
        names = {f"SLURMD_NODENAME={node}" for node in nodes}
        conf = f"SLURM_CONF={self.root}/etc/slurm.conf"
        parents = {int(entry.name): int(_stat(int(entry.name))[1]) for entry in Path("/proc").glob("[0-9]*")}
        found = set()
        for pid in parents:
            environment = _environment(pid)
            stepd = "/slurmstepd" in _link(pid, "exe") and _link(pid, "cwd") in folders
            if stepd or (conf in environment and names & environment):
                found.add(pid)
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return [pid for pid in sorted(found) if pid != os.getpid() and _alive(pid)]

    def node_states(self) -> dict[str, str]:
        """Node -> SLURM's state of it, such as "idle" or "down*". Empty if the controller does not answer."""
        lines = self._client("sinfo", "-h", "-N", "-p", "normal", "-o", "%N %T").splitlines()
        return dict(sorted((line.split()[0], line.split()[1]) for line in lines))

    def _idle(self) -> int:
        return list(self.node_states().values()).count("idle")

    def _known(self, daemon: str) -> int | None:
        if daemon not in self.daemons:
            raise UnknownName("daemon", daemon, self.daemons)
        return self._pid(daemon)

    def _pid(self, daemon: str) -> int | None:
        """The daemon's process, if alive and ours."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.root / "run" / f"{daemon}.pid").read_text())
            if _alive(pid) and f"{MARK}={self.root}" in _environment(pid):
                return pid
        return None

    def _log(self, daemon: str) -> Path:
        """slurmd works in the folder of its log, and so do its slurmstepds: hence a folder for each node."""
        kind, _, node = daemon.partition(".")
        return self.root / "log" / node / f"{kind}.log"

    def _write(self, cpus: int, gpus: int, preempt_signal: bool) -> None:
        """The files of a cluster without jobs."""
        root, last = self.root, len(self.nodes) - 1
        for name in WIPED:
            shutil.rmtree(root / name, ignore_errors=True)
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o755)  # munged refuses less, and more
        stored = {"port": self.port, "nodes": self.nodes, "accounting": self.accounting}
        (root / "devcluster.json").write_text(json.dumps(stored))
        for name in ("etc", "state", "spool", "run", "dev", *(f"log/{node}" for node in self.nodes)):
            (root / name).mkdir(mode=0o755, parents=True, exist_ok=True)
        for name, content in (("munge.key", os.urandom(128)), ("etc/slurmdbd.conf", b"")):
            (root / name).touch(mode=0o600)
            (root / name).write_bytes(content)
        for i in range(gpus):
            (root / f"dev/gpu{i}").symlink_to("/dev/null")
        (root / "etc/gres.conf").write_text(f"Name=gpu File={root}/dev/gpu[0-{gpus - 1}]\n" if gpus else "")

        # Daemons listen on what the machine's name resolves to; on loopback alone only if that is 127.0.0.1 itself
        loopback = False
        with contextlib.suppress(OSError):
            loopback = socket.gethostbyname(socket.gethostname()) == "127.0.0.1"
        values = {
            "root": root,
            "user": getpass.getuser(),
            "host": socket.gethostname().partition(".")[0],
            "controller_port": self.port,
            "srun_ports": f"{self.port + 100}-{self.port + 398}",
            "listen": "NoInAddrAny,NoCtldInAddrAny" if loopback else "",
            "signal": "SlurmctldParameters=preempt_send_user_signal" if preempt_signal else "",
            "first_job": 1000 + int(time.time() * 10) % 60_000_000,  # no id twice: files of jobs are named by it
            "storage": "slurmdbd" if self.accounting else "none",
            "storage_port": self.port + 1,
            "nodes": f"127.0.0.[11-{11 + last}]",
            "ports": f"[{self.port + 2}-{self.port + 2 + last}]",
            "cpus": cpus,
            "gres": f"Gres=gpu:{gpus}" if gpus else "",
        }
        (root / "etc/slurm.conf").write_text(SLURM_CONF.format(**values))
        (root / "etc/slurmdbd.conf").write_text(SLURMDBD_CONF.format(**values))

    def _environ(self) -> dict[str, str]:
        """The caller's environment without the traces of a SLURM job that it may be."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH"))}
        return kept | self.env | {"PATH": _path()}

    def _client(self, *words: str) -> str:
        """What a client of SLURM prints; empty if it fails or hangs, as it does without a controller."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(words, env=self._environ(), capture_output=True, text=True, timeout=10)
            return done.stdout.strip() if done.returncode == 0 else ""
        return ""

    def _database_options(self) -> list[str]:
        words = [
            "--no-defaults",
            f"--user={getpass.getuser()}",
            f"--datadir={self.root}/db",
            f"--tmpdir={self.root}/run",
        ]
        words += ["--lc-messages-dir=/usr/share/mysql", "--innodb-buffer-pool-size=16M", "--innodb-log-file-size=4M"]
        return [*words, "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0", "--skip-log-bin"]

    def _launch(self, daemon: str, words: Sequence[str], text: str = "") -> None:
        """Run what makes a daemon of itself. Its output goes to its log: no pipe of the caller's stays open."""
        env = self._environ() | {MARK: str(self.root), "MYSQL_UNIX_PORT": f"{self.root}/run/mariadbd.sock"}
        with open(self._log(daemon), "a") as log:
            done = subprocess.run(words, env=env, cwd=self.root, input=text, text=True, stdout=log, stderr=log)
        if done.returncode:
            raise Unavailable(self._failure(daemon, f"{words[0]} exits with code {done.returncode}"))

    def _wait(self, ready: Callable[[], bool], daemon: str, what: str = "its port") -> None:
        """Until ready. Gives up when the daemon has died, or after START."""
        started, seen = time.monotonic(), False

        def over() -> bool:
            nonlocal seen
            alive = self._pid(daemon) is not None
            died, seen = seen and not alive, alive
            return ready() or died

        _until(over, START)
        if not ready():
            raise Unavailable(self._failure(daemon, f"no {what} after {time.monotonic() - started:.0f} s"))

    def _failure(self, daemon: str, what: str) -> str:
        log = self._log(daemon)
        lines = log.read_text(errors="replace").splitlines()[-8:] if log.exists() else []
        return "\n    ".join([f"{daemon} did not start: {what}; {log} ends with", *lines])

    def _stop(self, *daemons: str, grace: float = 10) -> None:
        """SIGTERM, and SIGKILL after so many seconds."""
        pids = [pid for daemon in daemons if (pid := self._pid(daemon))]
        _end(pids, signal.SIGTERM, grace)
        _end(pids, signal.SIGKILL)


def up(root: Path | None, nodes: int, cpus: int, gpus: int, accounting: bool, preempt_signal: bool) -> list[str]:
    """Start a cluster; returns lines that say how to use it. Errors: those of `Devcluster.up`."""
    started = time.monotonic()
    cluster = Devcluster.up(
        root or default_root(), nodes=nodes, cpus=cpus, gpus=gpus, accounting=accounting, preempt_signal=preempt_signal
    )
    took = time.monotonic() - started
    return [
        f"{nodes} nodes with {cpus} CPUs and {gpus} pretended GPUs each are idle after {took:.1f} s. Use them:",
        _export(cluster),
        "harness submit RECIPE --cluster devcluster",
        f"Stop them: harness devcluster down{_option(root)}",
    ]


def down(root: Path | None) -> list[str]:
    """Stop a cluster. Errors: Unavailable if none runs."""
    cluster = Devcluster.at(root or default_root())
    cluster.down()
    return [f"stopped; logs are in {cluster.root}/log"]


def status(root: Path | None) -> list[str]:
    """Daemons, nodes, partitions, and the line for the shell. Errors: Unavailable if none runs."""
    cluster = Devcluster.at(root or default_root())
    lines = [f"{name:20} {'runs' if alive else 'DEAD'}" for name, alive in cluster.running().items()]
    if cluster.running()["slurmctld"]:  # else its clients hang
        lines += [f"node {name:15} {state}" for name, state in cluster.node_states().items()]
        partitions = cluster._client("sinfo", "-h", "-o", "%R %a").splitlines()
        lines += ["partition {:10} {}".format(*line.split()) for line in partitions]
    return [*lines, _export(cluster)]


def _export(cluster: Devcluster) -> str:
    return "export " + " ".join(f"{key}={value}" for key, value in cluster.env.items())


def _option(root: Path | None) -> str:
    return f" --root {root}" if root else ""


def _path() -> str:
    return os.pathsep.join([*os.environ.get("PATH", "").split(os.pathsep), *SBIN]).strip(os.pathsep)


def _check(root: Path, nodes: int, cpus: int, gpus: int, accounting: bool) -> None:
    """Can a cluster start at root? See `Devcluster.up` for the errors."""
    if not (1 <= nodes <= 64 and cpus >= 1 and gpus >= 0):
        raise BadCommand(f"{nodes} nodes, {cpus} CPUs, {gpus} GPUs; expected 1 to 64, 1 or more, 0 or more")
    longest = 107 - len(LONGEST)  # of the 108 bytes one ends the text
    if len(os.fsencode(root)) > longest:
        raise BadCommand(f"the root {root} is too long for unix sockets; expected at most {longest} bytes")
    for packages, programs in list(PACKAGES.items())[: 1 + accounting]:
        if missing := [program for program in programs if not shutil.which(program, path=_path())]:
            every = " ".join(list(PACKAGES)[: 1 + accounting])
            raise Unavailable(
                f"no {', '.join(missing)} here, of Debian's packages {packages}; "
                f"apt-get install --no-install-recommends {every}"
            )
    if (cluster := Devcluster.stored(root)) and any(cluster.running().values()):
        raise Unavailable(f"a devcluster runs at {root} already; `harness devcluster down{_option(root)}` stops it")
    if root.exists() and not cluster and (not root.is_dir() or any(root.iterdir())):
        raise BadCommand(f"the root {root} holds something else, which a start would wipe; name a new folder")
    if root.exists() and root.stat().st_uid != os.getuid():
        raise NotWritable(f"the root {root} belongs to another user; name another folder")


@contextlib.contextmanager
def _claimed(port: int | None) -> Iterator[int]:
    """The first of a range of free ports, bound meanwhile, so that no other start takes the same range."""
    first = 11000 + os.getpid() % 18 * 500
    for base in [port] if port else [11000 + (first + i) % 9000 for i in range(0, 9000, 500)]:  # torch takes from 20000
        with socket.socket() as claim:
            try:
                claim.bind(("", base))
            except OSError:
                continue
            if all(map(_free, range(base + 1, base + 67))):
                yield base
                return
    raise Unavailable(
        f"port {port} or one of the next 66 is in use" if port else "no 67 free ports from 11000 to 20000"
    )


def _free(port: int) -> bool:
    """Does nobody listen there? An old connection that lingers is no obstacle, to SLURM neither."""
    with socket.socket() as trial, contextlib.suppress(OSError):
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind(("", port))
        return True
    return False


def _until(ready: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.02)


def _end(pids: Sequence[int], number: signal.Signals, seconds: float = 10) -> None:
    """Send a signal, and wait so long for the end of all."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    _until(lambda: not any(map(_alive, pids)), seconds)


def _alive(pid: int) -> bool:
    """A zombie that nobody has reaped yet is dead."""
    return _stat(pid)[0] not in "ZX"


def _stat(pid: int) -> list[str]:
    """State and parent; "X" for a process that is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:2]
    return ["X", "0"]


def _environment(pid: int) -> set[str]:
    with contextlib.suppress(OSError):
        return set(Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0"))
    return set()


def _link(pid: int, name: str) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/{name}")
    return ""
