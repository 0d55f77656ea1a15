"""Every operation.  To add one is to add a line; a test tells which handler or verb still lacks one."""

from __future__ import annotations

from collections.abc import Mapping

from rvpfarm.admin import (
    administrators,
    broadcasting,
    domains,
    enrolling,
    handlers,
    listing,
    networks,
    nodes,
    privacy,
    renaming,
    servers,
    sessions,
    users,
)
from rvpfarm.admin import survey as surveys
from rvpfarm.admin.operations import Effect, Operation, Scope

READS, CHANGES, DESTROYS = Effect.READS, Effect.CHANGES, Effect.DESTROYS
FARM, ALL, DOMAIN, USER, LISTED = Scope.FARM, Scope.ALL, Scope.DOMAIN, Scope.USER, Scope.LISTED

_O = Operation

# fmt: off
_ALL = (
    _O("domain.list", listing.list_domains, "GET /domains", READS, LISTED),
    _O("domain.add", domains.add_domain, "POST /domains", CHANGES),
    _O("domain.alias.add", domains.add_alias, "POST /domains/{domain}/aliases", CHANGES),
    _O("domain.alias.remove", domains.remove_alias, "DELETE /domains/{domain}/aliases/{host}", DESTROYS),
    _O("domain.mail.add", domains.add_mail_domain, "POST /domains/{domain}/mail-domains", CHANGES),
    _O("domain.mail.remove", domains.remove_mail_domain,
       "DELETE /domains/{domain}/mail-domains/{mail_domain}", DESTROYS),
    _O("home.list", listing.list_homes, "GET /homes", READS, ALL),
    _O("home.create", handlers.create_home, "POST /homes", CHANGES),
    _O("home.show", listing.show_home, "GET /homes/{name}", READS, ALL),
    _O("home.set", servers.change_home, "PATCH /homes/{name}", CHANGES),
    _O("home.rename", renaming.rename_home, "POST /homes/{name}/rename", CHANGES),
    _O("router.list", listing.list_routers, "GET /routers", READS),
    _O("router.create", handlers.create_router, "POST /routers", CHANGES),
    _O("router.show", listing.show_router, "GET /routers/{name}", READS),
    _O("router.set", servers.change_router, "PATCH /routers/{name}", CHANGES),
    _O("router.rename", renaming.rename_router, "POST /routers/{name}/rename", CHANGES),
    _O("router.drain", servers.drain_router, "POST /routers/{name}/drain", CHANGES),
    _O("router.resume", servers.resume_router, "POST /routers/{name}/resume", CHANGES),
    _O("router.remove", servers.remove_router, "DELETE /routers/{name}", DESTROYS),
    _O("user.list", listing.page_users, "GET /users", READS, DOMAIN),
    _O("user.enable", enrolling.enroll_user, "POST /users", CHANGES, USER),
    _O("user.show", users.show_user, "GET /users/{address}", READS, USER),
    _O("user.disable", users.disable_user, "POST /users/{address}/disable", DESTROYS, USER),
    _O("user.passwd", users.set_password, "PUT /users/{address}/password", CHANGES, USER),
    _O("user.policy", users.change_user_policy, "PUT /users/{address}/policies/{name}", CHANGES, USER),
    _O("user.readdress", enrolling.readdress, "POST /users/{address}/readdress", CHANGES, USER),
    _O("user.lacking", users.list_lacking, "GET /users-without-verifiers", READS, DOMAIN, verb="user list"),
    _O("user.acl.set", privacy.change_privacy, "PUT /users/{address}/acl", CHANGES, USER, verb="user acl"),
    _O("user.acl", privacy.show_privacy, "GET /users/{address}/acl", READS, USER),
    _O("user.watchers", privacy.list_watchers, "GET /users/{address}/watchers", READS, USER),
    _O("session.list", sessions.list_sessions, "GET /sessions", READS, USER, of="user"),
    _O("session.kill", sessions.kill_sessions, "DELETE /users/{user}/sessions", DESTROYS, USER, of="user"),
    _O("broadcast", broadcasting.announce, "POST /broadcasts", CHANGES),
    _O("node.list", nodes.list_nodes, "GET /nodes", READS),
    _O("node.create", nodes.create_node, "POST /nodes", CHANGES),
    _O("node.remove", nodes.remove_node, "DELETE /nodes/{path}", DESTROYS),
    _O("policy.list", listing.list_policies, "GET /policies", READS, DOMAIN),
    _O("policy.set", handlers.change_policy, "PUT /policies/{name}", CHANGES),
    _O("network.list", listing.list_networks, "GET /networks", READS),
    _O("network.add", networks.add_network, "POST /networks", CHANGES),
    _O("network.set", networks.set_networks, "PUT /networks/{kind}", CHANGES),
    _O("network.remove", networks.remove_network, "DELETE /networks/{kind}/{addresses}", DESTROYS),
    _O("network.test", listing.explain_call, "GET /network-test", READS),
    _O("dns.plan", listing.list_records, "GET /dns/plan", READS),
    _O("status", surveys.survey, "GET /status", READS),
    _O("audit.list", listing.list_changes, "GET /audit", READS),
    _O("audit.verify", listing.verify_audit, "GET /audit/verification", READS),
    _O("admin.list", administrators.list_administrators, "GET /administrators", READS),
    _O("admin.add", administrators.add_administrator, "POST /administrators", CHANGES),
    _O("admin.remove", administrators.remove_administrator, "DELETE /administrators/{name}", DESTROYS),
    _O("admin.show", administrators.administrator_named, "GET /administrators/{name}", READS,
       verb="admin token list"),
    _O("admin.token.create", administrators.create_token, "POST /administrators/{name}/tokens", CHANGES),
    _O("admin.token.revoke", administrators.revoke_token, "DELETE /administrators/{name}/tokens/{token}",
       DESTROYS),
)
# fmt: on

#: Every operation by name.
OPERATIONS: Mapping[str, Operation] = {one.name: one for one in _ALL}
