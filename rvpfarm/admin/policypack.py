"""Settings of the clients of old as files for Windows: for the registry, and for group policies (core).

A setting of which one letter is wrong does nothing, and nobody is told (product D31): so only names and
values that a client is known to heed can be written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

from rvpfarm.admin.checks import Refused, check_text, enumerate_names

_SERVICE = "{83D4679E-B6D7-11D2-BF36-00C04FB90A03}"
_CLASSIC = r"Software\Microsoft\MessengerService\Policies"
_CLIENT = r"Software\Policies\Microsoft\Messenger\Client"
_PROFILES = r"Software\Microsoft\Exchange\Messenger\Profiles"
_ROOTS = {"Machine": "HKEY_LOCAL_MACHINE", "User": "HKEY_CURRENT_USER"}

#: The shortest and the longest lease of presence that means anything, in seconds.
_LEASE = (300, 14400)

_XMLNS = "http://www.microsoft.com/GroupPolicy/PolicyDefinitions"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of the clients.

    @ivar scope: C{"Machine"} or C{"User"}.
    @ivar key: where it is in the registry, below the scope.
    @ivar title: what it is called in the editor of group policies.
    @ivar text: what it does.
    @ivar choices: its numbers, and what each means; none for a text or a range.
    @ivar span: the least and the greatest number, of a range.
    """

    name: str
    scope: str
    key: str
    title: str
    text: str
    choices: Mapping[int, str] = field(default_factory=dict)
    span: tuple[int, int] | None = None

    @property
    def is_switch(self) -> bool:
        """It is on, or not there."""
        return list(self.choices) == [1]

    @property
    def is_text(self) -> bool:
        """Its value is a text."""
        return not self.choices and self.span is None


@dataclass(frozen=True, slots=True)
class Choice:
    """A setting with its value."""

    setting: Setting
    value: int | str


_ON: Mapping[int, str] = {1: "on"}

#: Every setting that a client is known to heed.
SETTINGS: Mapping[str, Setting] = {
    one.name: one
    for one in (
        Setting("DisableCrossPromo", "Machine", _CLASSIC, "Hide advertisements", "No space for ads.", _ON),
        Setting(
            "DisableUpdates",
            "Machine",
            _CLASSIC,
            "Ignore upgrade notices",
            "Notices of the public service that there is a newer client are ignored.",
            _ON,
        ),
        Setting(
            "ExchangeConn",
            "Machine",
            _CLASSIC,
            "Which service is used",
            "Whether the client signs in here, at the public service, or at both.",
            {0: "both, as the user likes", 1: "this service first", 2: "this service only"},
        ),
        Setting(
            "IMWarning",
            "Machine",
            _CLASSIC,
            "Text above each conversation",
            "Such as that conversations may be recorded.",
        ),
        Setting(
            "DefaultNTLMDomain",
            "Machine",
            _CLASSIC,
            "Domain for signing in",
            "The domain of the account when the user gives none.",
        ),
        Setting(
            "DisableVideo",
            "Machine",
            rf"{_CLIENT}\{_SERVICE}",
            "No video",
            "Video is not offered with this service.",
            _ON,
        ),
        Setting(
            "PreventAutoRun",
            "Machine",
            _CLIENT,
            "Do not start by itself",
            "The client does not start when somebody logs on to Windows.",
            _ON,
        ),
        Setting(
            "PropertyTimeout",
            "User",
            _PROFILES,
            "Lease of presence",
            "For how many seconds a state is good without being renewed.",
            span=_LEASE,
        ),
    )
}


def parse_choice(text: str) -> Choice:
    """The setting in C{NAME=VALUE}.

    @raise Refused: there is no such setting, or it cannot have that value.
    """
    name, equals, value = text.partition("=")
    by_name = {known.lower(): setting for known, setting in SETTINGS.items()}
    setting = by_name.get(name.strip().lower())
    if setting is None or not equals:
        raise Refused(f'"{text}" is no NAME=VALUE of a setting; the settings are {enumerate_names(SETTINGS)}')
    value = value.strip()
    if setting.is_text:
        return Choice(setting, check_text(value, setting.name))
    number = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else -1
    if setting.span is not None:
        least, most = setting.span
        if not least <= number <= most:
            raise Refused(f"{setting.name} is a number from {least} to {most}; {value} is none")
    elif number not in setting.choices:
        known = ", ".join(f"{one} ({meaning})" for one, meaning in setting.choices.items())
        raise Refused(f"{setting.name} cannot be {value}; clients heed {known}, and ignore everything else")
    return Choice(setting, number)


def choose(texts: Iterable[str], netbios: str = "") -> list[Choice]:
    """What is to be set: no ads, no upgrades, this service only, the farm's domain; or as is said.

    @param texts: C{NAME=VALUE} each; C{NAME=} leaves the setting out.
    @param netbios: of the farm's domain; empty if it has none.
    @raise Refused: as L{parse_choice}.
    """
    usual = ["DisableCrossPromo=1", "DisableUpdates=1", "ExchangeConn=2"]
    usual += [f"DefaultNTLMDomain={netbios}"] if netbios else []
    chosen = {choice.setting.name: choice for choice in map(parse_choice, usual)}
    known = {name.lower(): name for name in SETTINGS}
    for text in texts:
        name, equals, value = text.partition("=")
        if equals and not value.strip() and name.strip().lower() in known:
            chosen.pop(known[name.strip().lower()], None)
            continue
        choice = parse_choice(text)
        chosen[choice.setting.name] = choice
    return [chosen[name] for name in SETTINGS if name in chosen]


def render_reg(choices: Iterable[Choice]) -> bytes:
    """A registry file that sets C{choices}, as Windows 2000 and later read it."""
    keys: dict[str, list[str]] = {}
    for choice in choices:
        setting = choice.setting
        value = f"dword:{choice.value:08x}" if isinstance(choice.value, int) else _quoted(choice.value)
        key = rf"{_ROOTS[setting.scope]}\{setting.key}"
        keys.setdefault(key, []).append(f'"{setting.name}"={value}')
    lines = ["Windows Registry Editor Version 5.00", ""]
    for key, values in keys.items():
        lines += [f"[{key}]", *values, ""]
    return b"\xff\xfe" + "".join(f"{line}\r\n" for line in lines).encode("utf-16-le")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def render_admx() -> bytes:
    """The template: where each setting is, and which values it may have."""
    policies = "\n".join(_policy(setting) for setting in SETTINGS.values())
    return f"""<?xml version="1.0" encoding="utf-8"?>
<policyDefinitions xmlns="{_XMLNS}" revision="1.0" schemaVersion="1.0">
  <policyNamespaces>
    <target prefix="rvpfarm" namespace="Rvpfarm.Policies.Messenger"/>
  </policyNamespaces>
  <resources minRequiredRevision="1.0"/>
  <supportedOn>
    <definitions>
      <definition name="Messenger" displayName="$(string.Supported)"/>
    </definitions>
  </supportedOn>
  <categories>
    <category name="Messenger" displayName="$(string.Category)"/>
  </categories>
  <policies>
{policies}
  </policies>
</policyDefinitions>
""".encode()


def _policy(setting: Setting) -> str:
    """One setting of the template."""
    name = setting.name
    value = f" valueName={quoteattr(name)}" if setting.is_switch else ""
    form = "" if setting.is_switch else f' presentation="$(presentation.{name})"'
    return "\n".join(
        (
            f'    <policy name="{name}" class="{setting.scope}" displayName="$(string.{name})"',
            f'        explainText="$(string.{name}_Text)" key={quoteattr(setting.key)}{value}{form}>',
            '      <parentCategory ref="Messenger"/>',
            '      <supportedOn ref="Messenger"/>',
            *_values(setting),
            "    </policy>",
        )
    )


def _values(setting: Setting) -> Iterable[str]:
    """The values that it may have."""
    name = setting.name
    if setting.is_switch:
        yield '      <enabledValue><decimal value="1"/></enabledValue>'
        yield "      <disabledValue><delete/></disabledValue>"
        return
    yield "      <elements>"
    if setting.span is not None:
        least, most = setting.span
        yield (
            f'        <decimal id="{name}" valueName="{name}" minValue="{least}" maxValue="{most}" '
            'required="true"/>'
        )
    elif setting.is_text:
        yield f'        <text id="{name}" valueName="{name}" maxLength="256" required="true"/>'
    else:
        yield f'        <enum id="{name}" valueName="{name}" required="true">'
        for number in setting.choices:
            yield f'          <item displayName="$(string.{name}_{number})">'
            yield f'            <value><decimal value="{number}"/></value></item>'
        yield "        </enum>"
    yield "      </elements>"


def render_adml() -> bytes:
    """The words that go with the template, in English."""
    strings = {
        "Supported": "Windows Messenger and the Exchange instant messaging client",
        "Category": "Instant messaging (RVP)",
    }
    forms = []
    for name, setting in SETTINGS.items():
        strings[name], strings[f"{name}_Text"] = setting.title, setting.text
        if setting.is_switch:
            continue
        strings |= {f"{name}_{number}": meaning for number, meaning in setting.choices.items()}
        label = escape(setting.title)
        if setting.choices:
            box = f'<dropdownList refId="{name}" noSort="true">{label}</dropdownList>'
        elif setting.is_text:
            box = f'<textBox refId="{name}"><label>{label}</label></textBox>'
        else:
            box = f'<decimalTextBox refId="{name}" defaultValue="1200">{label}</decimalTextBox>'
        forms.append(f'      <presentation id="{name}">{box}</presentation>')
    lines = [f'      <string id="{name}">{escape(text)}</string>' for name, text in strings.items()]
    return f"""<?xml version="1.0" encoding="utf-8"?>
<policyDefinitionResources xmlns="{_XMLNS}" revision="1.0" schemaVersion="1.0">
  <displayName>Instant messaging (RVP)</displayName>
  <description>Settings of Windows Messenger and the Exchange instant messaging client</description>
  <resources>
    <stringTable>
{chr(10).join(lines)}
    </stringTable>
    <presentationTable>
{chr(10).join(forms)}
    </presentationTable>
  </resources>
</policyDefinitionResources>
""".encode()
