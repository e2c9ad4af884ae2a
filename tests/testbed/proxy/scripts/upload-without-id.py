# SPDX-License-Identifier: Apache-2.0
"""A new upload without an id."""
from proxy import upload

operation, most, deadline = "large", 3, 20
ends = "bad data"
says = r"without an id"
answer = upload(None, upload_id="")
