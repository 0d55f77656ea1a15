"""C{make bench}: the whole product beside nginx, HAProxy, ejabberd and Prosody, in one run on the same cores."""
