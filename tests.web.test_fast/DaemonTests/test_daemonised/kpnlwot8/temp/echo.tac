
from rvpfarm.tap.reactor import install
install()
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from rvpfarm.web.listening import ListeningService

class Echo(Protocol):
    def dataReceived(self, data):
        self.transport.write(data)

application = Application("echo")
ListeningService(
    reactor, "fast:tcp:34435:interface=127.0.0.1", Factory.forProtocol(Echo), who="echo"
).setServiceParent(application)
