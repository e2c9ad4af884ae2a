# SPDX-License-Identifier: Apache-2.0
"""The upload is gone, and what lies there is another's, of the same size."""
from proxy import LARGE, lost_completion, upload

operation, most, deadline = "large", 20, 20
ends = "missing input"
says = r"COMPLETE UPLOAD 'key': HTTP 404 NoSuchUpload"
answer = upload(lost_completion, head=LARGE, tag='ETag: "0123456789abcdef0123456789abcdef"')
