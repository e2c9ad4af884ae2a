# SPDX-License-Identifier: Apache-2.0
"""The signature names another region than the server's."""
from proxy import always

operation, most, deadline = "get", 1, 10
ends = "permission"
says = r"region 'eu-west-9'"
answer = always(400, "AuthorizationHeaderMalformed", extra="<Region>eu-west-9</Region>")
