# SPDX-License-Identifier: Apache-2.0
"""The bucket is in another region."""
from proxy import reply

operation, most, deadline = "get", 1, 10
ends = "permission"
says = r"region 'eu-west-9'"
answer = lambda s, c, r: reply(c, 301, b"", ["x-amz-bucket-region: eu-west-9"])
