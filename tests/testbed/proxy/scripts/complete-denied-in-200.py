# SPDX-License-Identifier: Apache-2.0
"""CompleteMultipartUpload: 200 with AccessDenied inside; the upload is aborted."""
from proxy import hidden_error, upload

operation, most, deadline = "large", 9, 20
ends = "permission"
says = r"COMPLETE UPLOAD .*AccessDenied"
answer = upload(hidden_error("AccessDenied", 9))


def after(server):
    return None if server.count("DELETE") else "the upload was not aborted"
