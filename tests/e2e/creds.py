#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Where credentials come from, each against a stand-in that speaks the real protocol; renewal before they expire; and no
secret in any output, command line or child's environment."""
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import aws_standins as aws  # noqa: E402
from orrery_run import ORRERY, check, descendants, folder  # noqa: E402

SMALL = b"what lies there"
LARGE = bytes(range(256)) * (5 * 16384)  # five parts of 4 MiB
seen = []  # all that any command printed, or showed in a process list


def run(tmp, server, env, *more, expect=0, verb="cat"):
    """One command without any credentials of the machine's own."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    plain |= {"HOME": str(tmp), "AWS_ENDPOINT_URL": server.url, "AWS_EC2_METADATA_DISABLED": "true", **env}
    with subprocess.Popen([ORRERY, "store", verb, "s3://bucket/key", *more], env=plain, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as child:
        seen.extend(line.encode() for _, line in descendants(child.pid))
        with open(f"/proc/{child.pid}/cmdline", "rb") as f:
            seen.append(f.read())
        out, err = child.communicate(timeout=120)
    seen.append(err if expect else b"" if verb == "cat" else out + err)
    check(child.returncode == expect, f"exit {expect}: {err.decode()[-300:].strip()}")
    return out, err.decode()


def static(keys):
    access, secret, token = keys.issue(3600)
    return {"AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": token}


def write(path, text, mode=0o600):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def environment_and_files(tmp, keys, server):
    out, _ = run(tmp, server, static(keys))
    check(out == SMALL, "from the environment")
    access, secret, _ = keys.issue(3600, token=False)
    write(tmp / ".aws/credentials", f"[other]\naws_access_key_id=x\n[default]\r\naws_access_key_id = {access}\r\n"
                                    f"aws_secret_access_key={secret}\n")
    check(run(tmp, server, {})[0] == SMALL, "from ~/.aws/credentials")
    access, secret, token = keys.issue(3600)
    write(tmp / ".aws/config", f"[default]\nregion = eu-west-1\n[profile team]\naws_access_key_id={access}\ns3 =\n"
                               f"  aws_access_key_id = nested\naws_secret_access_key={secret}\naws_session_token={token}\n"
                               "[profile chained]\nrole_arn=arn:x\nsource_profile=default\n")
    check(run(tmp, server, {"AWS_PROFILE": "team"})[0] == SMALL, "from a profile of ~/.aws/config")
    check(keys.used[-1] == access, "with that profile's key")
    _, err = run(tmp, server, {"AWS_PROFILE": "chained"}, expect=77)
    check("source_profile, which is not supported" in err, "says what is not supported")
    run(tmp, server, {"AWS_PROFILE": "nobody"}, expect=77)
    wrong = static(keys) | {"AWS_SECRET_ACCESS_KEY": "CANARY-wrong"}
    check("SignatureDoesNotMatch" in run(tmp, server, wrong, expect=77)[1], "a wrong secret is refused")
    gone = keys.issue(-5)
    expired = dict(zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"), gone))
    _, err = run(tmp, server, expired, expect=77)
    check("ExpiredToken" in err and "get a new one" in err, "an expired token is named, with the cure")


def process(tmp, keys, server):
    access, secret, token = keys.issue(3600)
    program = write(tmp / "bin dir/helper", "#!/bin/sh\n"
                    f"env > '{tmp}/child.env'; echo \"$#:$1:$2\" > '{tmp}/child.args'; echo CANARY-on-stderr >&2\n"
                    f"echo '{{\"Version\": 1, \"AccessKeyId\": \"{access}\", \"SecretAccessKey\": \"{secret}\",'\n"
                    f"echo '\"SessionToken\": \"{token}\", \"Expiration\": \"2099-01-01T00:00:00+02:00\"}}'\n", 0o700)
    write(tmp / ".aws/config", f"[profile made]\ncredential_process = '{program}' \"a b\" $HOME;x\n"
                               "[profile fails]\ncredential_process = false\n[profile hides]\ncredential_process = echo CANARY\n"
                               "[profile none]\ncredential_process = /no/such/program\n")
    made = {"AWS_PROFILE": "made", "AWS_SECRET_ACCESS_KEY": "CANARY-not-for-children"}
    check(run(tmp, server, made)[0] == SMALL, "from credential_process")
    check((tmp / "child.args").read_text() == "2:a b:$HOME;x\n", "no shell looks at its words")
    check("CANARY" not in (tmp / "child.env").read_text(), "the child's environment holds no secret")
    for name, says in (("fails", "status 1"), ("hides", "no JSON"), ("none", "cannot be started")):
        check(says in run(tmp, server, {"AWS_PROFILE": name}, expect=77)[1], f"credential_process: {says}")


def web_identity(tmp, keys, server):
    token = write(tmp / "token", "CANARY.web.token\n")
    sts = aws.sts(keys, token, 3600)
    env = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "AWS_ROLE_ARN": "arn:aws:iam::1:role/train",
           "AWS_ENDPOINT_URL_STS": sts.url, "AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}
    check(run(tmp, server, env)[0] == SMALL, "from a web identity token")
    other = write(tmp / "other", "another")
    _, err = run(tmp, server, env | {"AWS_WEB_IDENTITY_TOKEN_FILE": str(other)}, expect=77)
    check("InvalidIdentityToken: the token does not fit" in err, "says why STS refuses")
    _, err = run(tmp, server, env | {"AWS_ENDPOINT_URL_STS": "http://sts.example"}, expect=77)
    check("only fetched over https://" in err, "no token goes over plain HTTP to another machine")
    sts.server_close()


def renewed(tmp, keys, token, real, told):
    """One command that outlives its credentials: (sets that it used, refusals that it met)."""
    sts, server = aws.sts(keys, token, real, told), aws.s3(keys, LARGE, delay=0.9)
    keys.used.clear()
    keys.refused.clear()
    env = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "AWS_ROLE_ARN": "arn:aws:iam::1:role/train",
           "AWS_ENDPOINT_URL_STS": sts.url, "AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}
    out, _ = run(tmp, server, env, "--connections", "1")
    check(out == LARGE, f"every byte came, with {len(set(keys.used))} sets of credentials, after {len(keys.refused)} refusals")
    return len(set(keys.used)), len(keys.refused)


def renewal(tmp, keys):
    token = write(tmp / "token", "CANARY.web.token")
    early = any(sets > 1 and not refused for sets, refused in (renewed(tmp, keys, token, 4, None) for _ in range(3)))
    check(early, "renewed before they expire")
    sets, refused = renewed(tmp, keys, token, 1, 3600)
    check(sets > 1 and refused, "renewed when the server says first that they expired")


def container_and_instance(tmp, keys, server):
    none = {"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}
    secret = "CANARY-authorization"
    endpoint = aws.container(keys, secret, 3600)
    env = none | {"AWS_CONTAINER_CREDENTIALS_FULL_URI": endpoint.url + "/v2/credentials/abc",
                  "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(write(tmp / "authorization", secret + "\n"))}
    check(run(tmp, server, env)[0] == SMALL, "from a container's endpoint, with a token file")
    env.pop("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
    check(run(tmp, server, env | {"AWS_CONTAINER_AUTHORIZATION_TOKEN": secret})[0] == SMALL, "the token in the environment")
    check("HTTP 403" in run(tmp, server, env, expect=77)[1], "without a token: refused")
    env["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = "http://192.0.2.1/v2"
    check("only fetched over https://" in run(tmp, server, env, expect=77)[1], "not over plain HTTP to elsewhere")
    metadata = aws.imds(keys, 3600)
    env = none | {"AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url, "AWS_EC2_METADATA_DISABLED": "false"}
    check(run(tmp, server, env)[0] == SMALL, "from the instance, IMDSv2")
    _, err = run(tmp, server, none, expect=77)
    check("AWS_ACCESS_KEY_ID" in err, "nowhere: says what to set")


def main():
    keys = aws.Keys()
    with folder() as tmp:
        server = aws.s3(keys, SMALL)
        environment_and_files(tmp, keys, server)
        process(tmp, keys, server)
        web_identity(tmp, keys, server)
        container_and_instance(tmp, keys, server)
        renewal(tmp, keys)
        secrets = [s.encode() for values in keys.issued.values() for s in values[:2] if s] + [b"CANARY-", b"CANARY.web"]
        check(not any(s in text for s in secrets for text in seen), f"no secret in {len(seen)} outputs and command lines")


main()
