"""The bodies that the protocol notes print, byte for byte (section 3), and the lengths printed with them."""

from __future__ import annotations

MULTISTATUS = (
    b'<?xml version="1.0"?>'
    b"<d:multistatus xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' xmlns:a='http:"
    b"//schemas.microsoft.com/rvp/acl/'><d:response>"
    b"<d:href>http://im.fabrik.example/instmsg/aliases/petra</d:href><d:propstat><d:prop>"
    b"<r:state><r:away/></r:state><d:displayname>Petra Novak</d:displayname>"
    b"<r:email>petra@fabrik.example</r:email><r:mobile-state>0</r:mobile-state>"
    b"<r:mobile-description></r:mobile-description></d:prop>"
    b"<d:status>HTTP/1.1 200 Successful</d:status></d:propstat></d:response></d:multistatus>"
)

SUBSCRIPTIONS = (
    b'<?xml version="1.0"?>'
    b"<r:subscriptions xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' xmlns:a='htt"
    b"p://schemas.microsoft.com/rvp/acl/'><r:subscription>"
    b"<r:subscription-id>40131</r:subscription-id>"
    b"<d:href>http://im.orchard.example/instmsg/aliases/ingrid</d:href><a:principal>"
    b"<a:rvp-principal>http://im.orchard.example/instmsg/aliases/ingrid</a:rvp-principal>"
    b"</a:principal><d:timeout>13877</d:timeout></r:subscription><r:subscription>"
    b"<r:subscription-id>40140</r:subscription-id>"
    b"<d:href>http://im.fabrik.example/instmsg/aliases/tomasz</d:href><a:principal>"
    b"<a:rvp-principal>http://im.fabrik.example/instmsg/aliases/tomasz</a:rvp-principal>"
    b"</a:principal><d:timeout>9026</d:timeout></r:subscription></r:subscriptions>"
)

PROPFIND = (
    b'<?xml version="1.0"?>'
    b"<d:propfind xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/'><d:prop>"
    b"<d:displayname/></d:prop></d:propfind>"
)

MULTISTATUS_NAME = (
    b'<?xml version="1.0"?>'
    b"<d:multistatus xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' xmlns:a='http:"
    b"//schemas.microsoft.com/rvp/acl/'><d:response>"
    b"<d:href>http://im.fabrik.example/instmsg/aliases/petra</d:href><d:propstat><d:prop>"
    b"<d:displayname>Petra Novak</d:displayname></d:prop>"
    b"<d:status>HTTP/1.1 200 Successful</d:status></d:propstat></d:response></d:multistatus>"
)

PROPFIND_ALL = b"<?xml version=\"1.0\"?><d:propfind xmlns:d='DAV:'><d:allprop/></d:propfind>"

MULTISTATUS_MIXED = (
    b'<?xml version="1.0"?>'
    b"<d:multistatus xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' xmlns:a='http:"
    b"//schemas.microsoft.com/rvp/acl/'><d:response>"
    b"<d:href>http://im.fabrik.example/instmsg/aliases/petra</d:href><d:propstat><d:prop>"
    b"<r:email>petra@fabrik.example</r:email></d:prop>"
    b"<d:status>HTTP/1.1 200 Successful</d:status></d:propstat><d:propstat><d:prop>"
    b"<r:shoe-size/></d:prop><d:status>HTTP/1.1 404 Not Found</d:status></d:propstat>"
    b"</d:response></d:multistatus>"
)

PROPPATCH = (
    b'<?xml version="1.0"?>'
    b"<d:propertyupdate xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' xmlns:a='ht"
    b"tp://schemas.microsoft.com/rvp/acl/'><d:set><d:prop><r:state><r:leased-value><r:value>"
    b"<r:online/></r:value><r:default-value><r:offline/></r:default-value>"
    b"<d:timeout>1200</d:timeout></r:leased-value></r:state></d:prop></d:set>"
    b"</d:propertyupdate>"
)

MULTISTATUS_LEASE = (
    b'<?xml version="1.0"?>'
    b"<d:multistatus xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' xmlns:a='http:"
    b"//schemas.microsoft.com/rvp/acl/'><d:response>"
    b"<d:href>http://im.fabrik.example/instmsg/aliases/petra</d:href><d:propstat><d:prop>"
    b"<r:state><r:leased-value><r:value><r:online/></r:value><r:default-value><r:offline/>"
    b"</r:default-value><d:timeout>1200</d:timeout></r:leased-value>"
    b"<r:view-id>3577</r:view-id></r:state></d:prop>"
    b"<d:status>HTTP/1.1 200 Successful</d:status></d:propstat></d:response></d:multistatus>"
)

PROPPATCH_PLAIN = (
    b'<?xml version="1.0"?>'
    b"<d:propertyupdate xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' xmlns:a='ht"
    b"tp://schemas.microsoft.com/rvp/acl/'><d:set><d:prop><r:mobile-state>1</r:mobile-state>"
    b"<r:mobile-description>+48 555 0142</r:mobile-description></d:prop></d:set>"
    b"</d:propertyupdate>"
)

MULTISTATUS_PLAIN = (
    b'<?xml version="1.0"?>'
    b"<d:multistatus xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' xmlns:a='http:"
    b"//schemas.microsoft.com/rvp/acl/'><d:response>"
    b"<d:href>http://im.fabrik.example/instmsg/aliases/petra</d:href><d:propstat><d:prop>"
    b"<r:mobile-state></r:mobile-state><r:mobile-description></r:mobile-description></d:prop>"
    b"<d:status>HTTP/1.1 200 Successful</d:status></d:propstat></d:response></d:multistatus>"
)

MESSAGE = (
    b'<?xml version="1.0"?>'
    b"<r:notification xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' xmlns:a='http"
    b"://schemas.microsoft.com/rvp/acl/'><r:message><r:notification-from><r:contact>"
    b"<d:href>http://im.fabrik.example/instmsg/aliases/tomasz</d:href>"
    b"<r:description>Tomasz Lis</r:description></r:contact></r:notification-from>"
    b"<r:notification-to><r:contact>"
    b"<d:href>http://im.fabrik.example/instmsg/aliases/petra</d:href>"
    b"<r:description>Petra Novak</r:description></r:contact></r:notification-to><r:msgbody>"
    b"<r:mime-data>"
    b"<![CDATA[MIME-Version: 1.0\r\nContent-Type: text/plain; charset=UTF-8\r\nX-MMS-IM-Format: FN"
    b"=MS%20Shell%20Dlg; EF=; CO=0; CS=0; PF=0\r\nSession-Id: {3B0C7F52-91D4-4E6A-8C17-5A2E90D4B"
    b"7F1}\r\n\r\nCoffee at ten?]]></r:mime-data></r:msgbody></r:message></r:notification>"
)

PROPERTY = (
    b'<?xml version="1.0"?>'
    b"<r:notification xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' xmlns:a='http"
    b"://schemas.microsoft.com/rvp/acl/'><r:propnotification><r:notification-from><r:contact>"
    b"<d:href>http://im.fabrik.example/instmsg/aliases/petra</d:href>"
    b"<r:description>Petra Novak</r:description></r:contact></r:notification-from>"
    b"<r:notification-to><r:contact>"
    b"<d:href>http://im.orchard.example/instmsg/aliases/ingrid</d:href><r:description>"
    b"</r:description></r:contact></r:notification-to><d:propertyupdate><d:set><d:prop>"
    b"<r:state><r:busy/></r:state></d:prop></d:set></d:propertyupdate></r:propnotification>"
    b"</r:notification>"
)

RAW = (
    b'<?xml version="1.0"?>'
    b"<r:notification xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' xmlns:a='http"
    b"://schemas.microsoft.com/rvp/acl/'><parcelEvent xmlns='urn:example:parcel'>"
    b"<kind>DELIVERED</kind><at>2001-03-24T13:45:00Z</at></parcelEvent></r:notification>"
)

ACL = (
    b'<?xml version="1.0"?>'
    b"<a:rvpacl xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' xmlns:a='http://sch"
    b"emas.microsoft.com/rvp/acl/'><a:acl><a:inheritance>none</a:inheritance><a:ace>"
    b"<a:principal><a:allprincipals/><a:credentials><a:assertion/><a:digest/><a:ntlm/>"
    b"</a:credentials></a:principal><a:grant><a:list/><a:read/><a:send-to/><a:presence/>"
    b"</a:grant><a:deny/></a:ace><a:ace><a:principal>"
    b"<a:rvp-principal>http://im.fabrik.example/instmsg/aliases/petra</a:rvp-principal>"
    b"<a:credentials><a:digest/><a:ntlm/></a:credentials></a:principal><a:grant><a:list/>"
    b"<a:read/><a:write/><a:send-to/><a:receive-from/><a:readacl/><a:writeacl/><a:presence/>"
    b"<a:subscriptions/><a:subscribe-others/></a:grant><a:deny/></a:ace></a:acl></a:rvpacl>"
)

ACL_BLOCK = (
    b'<?xml version="1.0"?>'
    b"<a:rvpacl xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' xmlns:a='http://sch"
    b"emas.microsoft.com/rvp/acl/'><a:acl><a:inheritance>none</a:inheritance><a:ace>"
    b"<a:principal>"
    b"<a:rvp-principal>http://im.orchard.example/instmsg/aliases/ingrid</a:rvp-principal>"
    b"<a:credentials><a:assertion/><a:digest/><a:ntlm/></a:credentials></a:principal>"
    b"<a:grant/><a:deny><a:send-to/><a:presence/></a:deny></a:ace><a:ace><a:principal>"
    b"<a:allprincipals/><a:credentials><a:assertion/><a:digest/><a:ntlm/></a:credentials>"
    b"</a:principal><a:grant><a:list/><a:read/><a:send-to/><a:presence/></a:grant><a:deny/>"
    b"</a:ace><a:ace><a:principal>"
    b"<a:rvp-principal>http://im.fabrik.example/instmsg/aliases/petra</a:rvp-principal>"
    b"<a:credentials><a:digest/><a:ntlm/></a:credentials></a:principal><a:grant><a:list/>"
    b"<a:read/><a:write/><a:send-to/><a:receive-from/><a:readacl/><a:writeacl/><a:presence/>"
    b"<a:subscriptions/><a:subscribe-others/></a:grant><a:deny/></a:ace></a:acl></a:rvpacl>"
)
#: The bodies that are printed with a Content-Length, and that length.
LENGTHS = (
    (MULTISTATUS, 521),
    (SUBSCRIPTIONS, 720),
    (PROPFIND, 138),
    (MULTISTATUS_NAME, 375),
    (PROPPATCH, 353),
    (MULTISTATUS_LEASE, 516),
    (MESSAGE, 773),
    (PROPERTY, 628),
    (RAW, 266),
    (ACL, 731),
    (ACL_BLOCK, 973),
)
