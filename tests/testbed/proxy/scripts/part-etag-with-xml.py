# SPDX-License-Identifier: Apache-2.0
"""An ETag with XML in it."""
from proxy import upload

operation, most, deadline = "large", 15, 20
ends = "bad data"
says = r"ETag"
answer = upload(None, part_tag='ETag: "<a>"')
