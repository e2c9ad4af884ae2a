# SPDX-License-Identifier: Apache-2.0
"""An upload id of 5000 letters."""
from proxy import upload

operation, most, deadline = "large", 3, 20
ends = "bad data"
says = r"an upload id of"
answer = upload(None, upload_id="u" * 5000)
