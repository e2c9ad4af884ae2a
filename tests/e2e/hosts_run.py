#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""orrery run over three hosts (network namespaces): plain run, verdicts on a host that is cut off, frozen or switched off."""
import json
import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from fake_run import check_ledger, config, events, fake_environment, output, settings, wait_for, wait_step  # noqa: E402
from orrery_run import check, folder, orrery, refused  # noqa: E402
from testbed_hosts import hosts  # noqa: E402


def words(h, tmp, layout="h1:2,h2:1,h3:1", **keys):
    return ["run", config(tmp), "--hosts", layout, *settings(tmp, launch__agent=f"{h.path}/agent", **keys)]


def all_gone(h, names=("h1", "h2", "h3")):
    left = wait_for(lambda: not any("orrery" in c or "fake_rank" in c or "orted" in c or "prted" in c for n in names
                                    for c in h.processes(n).values()), 20)
    check(left, f"no process of the job is left on {', '.join(names)}")


def plain(h):
    with folder() as tmp:
        child = h.start(*words(h, tmp), env=fake_environment())
        code = child.wait(120)
        text = output(child)
        check(code == 0, f"four ranks on three hosts: exit {code} {text[-600:] if code else ''}")
        check("4 ranks on h1:2,h2:1,h3:1" in text.splitlines()[0], text.splitlines()[0])
        check("rank 3 step 60" in orrery("logs", f"{tmp}/run", "--rank", 3).stdout, "the far ranks' logs are here")
        ranks = json.loads(orrery("why", f"{tmp}/run", "--json").stdout)["ranks"]
        check([r["step"] for r in ranks] == [60] * 4, "the far ranks' black boxes are here")
        check_ledger(f"{tmp}/run")
        all_gone(h)


def credentials(h):
    """What stands in the environment here reaches ranks whose launch agent passes nothing on, and stands in nobody's arguments."""
    with folder() as tmp:
        agent, secret = pathlib.Path(tmp) / "agent", f"secret-{os.getpid()};a=b,+/=="
        agent.write_text(f'#!/bin/sh\nexec env -i PATH="$PATH" HOME="$HOME" {h.path}/agent "$@"\n')
        agent.chmod(0o755)
        env = fake_environment(AWS_SECRET_ACCESS_KEY=secret, AWS_PROFILE="a b", ORRERY_STORE_VENDOR="ceph")
        child = h.start("run", config(tmp), "--hosts", "h1:1,h2:1", *settings(tmp, steps=1000000, launch__agent=agent), env=env)
        check(wait_step(f"{tmp}/run", 5, 60), "it runs")
        far = [pid for pid, command in h.processes("h2").items() if command.split(" ")[0].endswith("fake_rank")]
        seen = pathlib.Path(f"/proc/{far[0]}/environ").read_bytes().decode().split("\0")
        for word in (f"AWS_SECRET_ACCESS_KEY={secret}", "AWS_PROFILE=a b", "ORRERY_STORE_VENDOR=ceph"):
            check(word in seen, f"the far rank has {word.split('=')[0]}")
        told = [c for n in ("h1", "h2") for c in h.processes(n).values() if secret in c]
        check(not told, f"the secret is in no arguments: {told}")
        stop(h, child)
        all_gone(h)


def full_names(h):
    """The launch agent is asked for the very names that were given, domain and all."""
    with folder() as tmp:
        table = pathlib.Path(h.path) / "etc-hosts"
        before, asked, agent = table.read_text(), f"{tmp}/asked", pathlib.Path(tmp) / "agent"
        table.write_text("".join(f"{line} {line.split()[1]}.lab.test\n" for line in before.splitlines()))
        agent.write_text(f'#!/bin/sh\necho "$1" >>{asked}\nhost=${{1%%.*}}\nshift\nexec {h.path}/agent "$host" "$@"\n')
        agent.chmod(0o755)
        child = h.start("run", config(tmp), "--hosts", "h1.lab.test:1,h2.lab.test:1", *settings(tmp, launch__agent=agent),
                        env=fake_environment())
        code = child.wait(120)
        table.write_text(before)
        names = set(open(asked).read().split())
        check(code == 0 and names == {"h2.lab.test"}, f"exit {code}, asked for {names}")


def host_file(h):
    """The same command beside a host file, as Kubernetes' MPI operator sets one up."""
    with folder() as tmp:
        path = f"{tmp}/hostfile"
        with open(path, "w") as f:
            f.write("h1 slots=2\nh2 slots=1\nh3 slots=1\n")
        env = fake_environment(OMPI_MCA_orte_default_hostfile=path, OMPI_MCA_orte_keep_fqdn_hostnames="true")
        child = h.start("run", config(tmp), *settings(tmp, launch__agent=f"{h.path}/agent"), env=env)
        code = child.wait(120)
        text = output(child)
        check(code == 0 and f"4 ranks on host file {path}"[:40] in text, f"host file: exit {code} {text.splitlines()[0]}")
        all_gone(h)


def lost(h, fault, *wanted):
    with folder() as tmp:
        child = h.start(*words(h, tmp, steps=1000000, launch__attempts=1, launch__lost_s=2), env=fake_environment())
        check(wait_step(f"{tmp}/run", 20, 60), "it runs")
        h.do(fault, "h2")
        begin = time.monotonic()
        code = child.wait(120)
        text = output(child)
        line = text.split("cause: ")[1].splitlines()[0] if "cause: " in text else text[-500:]
        check(code == 73, f"{fault}: exit {code}")
        for part in ("host h2 (rank 2)", *wanted):
            check(part in line, f"{fault}: the cause says '{part}': {line}")
        verdict = events(f"{tmp}/run", "verdict")[-1]
        check((verdict["kind"], verdict["rank"], verdict["host"]) == ("host", 2, "h2"), "as numbers")
        print(f"{fault}: whole end after {time.monotonic() - begin:.1f} s with launch.lost_s=2")
        h.do({"cut": "join", "freeze": "thaw", "off": "boot"}[fault], "h2")
        all_gone(h)


def straggles(h, what, *wanted, **keys):
    with folder() as tmp:
        child = h.start(*words(h, tmp, steps=1000000, launch__straggler=0.3, **keys), env=fake_environment())
        check(wait_step(f"{tmp}/run", 20, 60), "it runs")
        if what == "delay":
            h.do("delay", "h2", 100)

        def named():
            return [r for r in events(f"{tmp}/run", "straggler") if all(w in r["text"] for w in wanted)]
        check(wait_for(named, 90, 0.2), f"{what}: a straggler is named: {[r['text'] for r in events(f'{tmp}/run', 'straggler')]}")
        check(named()[-1]["host"] == "h2", named()[-1]["text"])
        if what == "delay":
            h.do("delay", "h2", 0)
        stop(h, child)
        all_gone(h)


def stop(h, child):
    for pid, command in h.processes("h1").items():
        if "orrery run" in command:
            os.kill(pid, signal.SIGTERM)
    check(child.wait(60) == 75, "it saves and stops")


def bad_words(h):
    with folder() as tmp:
        for layout, status, text in (("-oProxyCommand=x:1", 78, "no host name"), ("h1;reboot", 78, "no host name"), ("h1:0", 78, "slots"),
                                     ("h1,h1", 78, "twice"), ("h1:2,nowhere.invalid", 69, "nowhere.invalid")):
            refused(words(h, tmp, layout), status, text, env=fake_environment())
        check(not (pathlib.Path(tmp) / "run" / "logs" / "attempt-1").exists(), "nothing was started")


def main():
    with hosts() as h:
        plain(h)
        credentials(h)
        full_names(h)
        host_file(h)
        straggles(h, "delay", "host h2 is far")
        straggles(h, "slow", "for rank 2 on host h2", fault__inject="slow=60ms:rank=2")
        lost(h, "cut", "has not been heard for", "link is cut")
        lost(h, "freeze", "has not been heard for")
        lost(h, "off", "lost")
        bad_words(h)


main()
