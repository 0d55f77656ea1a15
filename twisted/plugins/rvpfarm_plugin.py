"""The services that C{twistd} can start, and the endpoints on the loop's own transports.

twistd loads this file before a reactor is chosen, so it imports nothing that would choose one.
"""

from twisted.application.service import ServiceMaker

from rvpfarm.web.endpoints import FastClientParser, FastServerParser

router = ServiceMaker("RVP router", "rvpfarm.tap.router", "Route RVP calls to the homes.", "rvp-router")
home = ServiceMaker("RVP home server", "rvpfarm.tap.home", "Keep presence and deliver messages.", "rvp-home")
farm = ServiceMaker("RVP farm", "rvpfarm.tap.farm", "Run a whole small farm on this machine.", "rvp-farm")
nameserver = ServiceMaker(
    "RVP name server", "rvpfarm.tap.nameserver", "Answer DNS for the farm's own zone.", "rvp-dns"
)
admin = ServiceMaker("RVP admin API", "rvpfarm.tap.admin", "Serve the HTTP/JSON admin API.", "rvp-admin")
fastServer = FastServerParser()
fastClient = FastClientParser()
