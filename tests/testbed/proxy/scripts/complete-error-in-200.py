# SPDX-License-Identifier: Apache-2.0
"""CompleteMultipartUpload: 200 with <Error> inside, twice."""
from proxy import hidden_error, upload

operation, most, deadline = "large", 9, 20
ends = "ok"
says = r""
answer = upload(hidden_error("InternalError", 2))
