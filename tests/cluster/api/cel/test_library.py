"""The functions beyond the language: Kubernetes' own and the extensions that it enables."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.api import cel
from steersman.cluster.api.cel import (
    DYN,
    Authorizer,
    Budget,
    BudgetExceeded,
    Decision,
    Declarations,
    EvaluationError,
    Question,
    Type,
)
from steersman.cluster.api.cel.library.regex import compiled


def _value(expression: str) -> Any:
    return cel.compile(expression, Declarations()).evaluate({}, Budget(1e7))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("'hello'.charAt(4) + 'hello'.charAt(5)", "o"),
        ("'hello mellow'.indexOf('ello', 2)", 7),
        ("'hello mellow'.lastIndexOf('ello')", 7),
        ("['a', 'b'].join('-') + ['c'].join()", "a-bc"),
        ("'TacoÉ'.lowerAscii() + 'tacoé'.upperAscii()", "tacoÉTACOé"),
        ("'hello hello'.replace('he', 'we', 1)", "wello hello"),
        ("'a b c'.split(' ', 2) == ['a', 'b c'] && 'ab'.split('') == ['a', 'b']", True),
        ("'tacocat'.substring(4) + 'tacocat'.substring(0, 4)", "cattaco"),
        ("'  \\ttrim\\n '.trim()", "trim"),
        ("strings.quote('a\"b\\n')", '"a\\"b\\n"'),
        ("'%s %d %.3f %e %b %x %X %o %%'.format(['a', 5, 1.0, 10.0, 5, 255, 'hi', 8])",
         "a 5 1.000 1.000000e+01 101 ff 6869 10 %"),
        ("'%s %s %s'.format([[1, 2], {'b': 1, 'a': true}, null])", "[1, 2] {a: true, b: 1} null"),
        ("'abc 123'.find('[0-9]+') + 'abc'.find('x')", "123"),
        ("'123 abc 456'.findAll('[0-9]+', 1) == ['123'] && 'a1b2'.findAll('[0-9]').size() == 2", True),
        ("'foobar'.matches('^foo') && matches('x', '[[:alpha:]]')", True),
        ("[1, 3, 2].isSorted()", False),
        ("[1, 3, 2].sum() + [1, 3, 2].min() + [1, 3, 2].max()", 10),
        ("[1, 2, 2].indexOf(2) * 10 + [1, 2, 2].lastIndexOf(2)", 12),
        ("[3, 1, 2].sort()", [1, 2, 3]),
        ("['b', 'a'].sort() + ['x', 'y', 'z'].slice(1, 2)", ["a", "b", "y"]),
        ("[{'n': 2}, {'n': 1}].sortBy(row, row.n).map(row, row.n)", [1, 2]),
        ("['aaa', 'b', 'cc'].sortBy(text, -size(text))", ["aaa", "cc", "b"]),
        ("[1, 2, 3].reverse()", [3, 2, 1]),
        ("[1, 2, 1, 3, 2].distinct()", [1, 2, 3]),
        ("[dyn(1), dyn(1.0), dyn('1'), dyn(true)].distinct().size()", 3),
        ("[[1], [2, 3], []].flatten()", [1, 2, 3]),
        ("[dyn(1), dyn([dyn(2), dyn([dyn(3), dyn([4])])])].flatten(2)", [1, 2, 3, [4]]),
        ("lists.range(3)", [0, 1, 2]),
        ("[1, 2].first().value() + [1, 2].last().value()", 3),
        ("[].first().hasValue()", False),
        ("optional.unwrap([optional.of(1), optional.none()]) + [optional.of(2)].unwrapOpt()", [1, 2]),
        ("[duration('1s'), duration('2s')].sum() == duration('3s')", True),
        ("sets.contains([1, 2], [2]) && sets.equivalent([1, 1], [1]) && !sets.intersects([1], [2])", True),
        ("url('https://user@example.com:80/p%20a/?k=a&k=b').getHost()", "example.com:80"),
        ("url('https://[::1]:80/').getHostname() + url('https://a/').getPort()", "::1"),
        ("url('https://a/?k=a&k=b').getQuery()", {"k": ["a", "b"]}),
        ("isURL('https://a:80/') && !isURL('no url') && url('/a').getEscapedPath() == '/a'", True),
        ("url('https://example.com/path with spaces/').getEscapedPath()", "/path%20with%20spaces/"),
        ("url('https://a:99999/').getPort() + url('https://[::1]/').getPort()", "99999"),
        ("url('https://[fe80::1%25en0]:1/').getHostname()", "fe80::1%en0"),
        ("isURL('*') && isURL('mailto:a@b') && !isURL('') && !isURL('a/b') && !isURL('http://a b/')", True),
        ("isCIDR('10.0.0.0/08') || isCIDR('fe80::1%a/64') || isCIDR('10.0.0.0')", False),
        ("quantity('50k').add(quantity('1Ki')).sub(24).asInteger()", 51000),
        ("quantity('1.5Gi').isGreaterThan(quantity('1G')) && quantity('1k').compareTo(quantity('1000')) == 0", True),
        ("isQuantity('1Xi') || quantity('1.5').isInteger()", False),
        ("quantity('200M') == quantity('0.2G')", True),
        ("ip('::1').family() + ip('127.0.0.1').family()", 10),
        ("ip('127.0.0.1').isLoopback() && ip('224.0.0.1').isLinkLocalMulticast()", True),
        ("ip('1.1.1.1').isGlobalUnicast() && !ip('::').isGlobalUnicast()", True),
        ("isIP('1.2.3') || isIP('::ffff:1.2.3.4') || !ip.isCanonical('1.2.3.4')", False),
        ("ip.isCanonical('2001:DB8::1')", False),
        ("cidr('192.168.0.1/24').containsIP('192.168.0.5') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')", True),
        ("string(cidr('192.168.0.1/24').masked()) + string(cidr('192.168.0.1/24').ip())", "192.168.0.0/24192.168.0.1"),
        ("cidr('10.0.0.0/8').prefixLength()", 8),
        ("format.dns1123Label().validate('a-b').hasValue()", False),
        ("format.named('dns1123Subdomain').value().validate('A').value()[0].startsWith('a lowercase RFC 1123')", True),
        ("format.named('nope').hasValue()", False),
        ("semver('1.2.3').major() + semver('v1.5', true).minor()", 6),
        ("semver('1.0.0-alpha.1').isLessThan(semver('1.0.0-alpha.beta'))", True),
        ("semver('1.0.0-rc').isLessThan(semver('1.0.0'))", True),
        ("isSemver('1.2') || isSemver('01.2.3') || !isSemver('1.2.3-a+b')", False),
        ("base64.encode(b'hello') + string(base64.decode('aGVsbG8'))", "aGVsbG8=hello"),
    ],
)  # fmt: skip
def test_a_function_gives_this(expression: str, expected: Any) -> None:
    assert _value(expression) == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("'abc'.charAt(9)", "index out of range: 9"),
        ("'abc'.substring(2, 1)", "invalid substring range. start: 2, end: 1"),
        ("[].map(x, 1).min()", "min called on empty list"),
        ("quantity('x')", "quantities must match the regular expression "
         "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
        ("'%d'.format(['a'])", "error during formatting: decimal clause cannot be used on string"),
        ("'%s'.format([])", "index 0 out of range"),
        ("[9223372036854775807, 1].sum()", "integer overflow"),
        ("ip('a')", 'IP Address "a" parse error during conversion from string: ParseAddr("a"): unable to parse IP'),
        ("ip('fe80::1%a')", 'IP address "fe80::1%a" with zone value is not allowed'),
        ("ip('::ffff:1.2.3.4')", 'IPv4-mapped IPv6 address "::ffff:1.2.3.4" is not allowed'),
        ("cidr('10.0.0.0')",
         "network address parse error during conversion from string: netip.ParsePrefix(\"10.0.0.0\"): no '/'"),
        ("cidr('10.0.0.0/33')", "network address parse error during conversion from string: "
         "netip.ParsePrefix(\"10.0.0.0/33\"): prefix length out of range"),
        ("url('https://a:port/')", 'URL parse error during conversion from string: parse "https://a:port/": '
         'invalid port ":port" after host'),
        ("url('../a')", 'URL parse error during conversion from string: parse "../a": invalid URI for request'),
        ("[1].slice(0, 2)", "cannot slice(0, 2), list is length 1"),
        ("[1].slice(1, 0)", "cannot slice(1, 0), start index must be less than or equal to end index"),
        ("[1].slice(-1, 0)", "cannot slice(-1, 0), negative indexes not supported"),
        ("[dyn(1)].flatten(-1)", "level must be non-negative"),
        ("lists.range(-1)", "lists.range: size must be non-negative, got -1"),
        ("[dyn(1), dyn('a')].sort()", "list elements must have the same type"),
        ("[1, 2].sortBy(n, dyn([n]))", "list elements must be comparable"),
    ],
)  # fmt: skip
def test_a_function_fails_with_this(expression: str, message: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        _value(expression)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("pattern", "wrong"),
    [
        ("a(", "missing closing ): `a(`"), ("a)", "unexpected ): `a)`"), ("a[", "missing closing ]: `[`"),
        ("*a", "missing argument to repetition operator: `*`"), ("a**", "invalid nested repetition operator: `**`"),
        ("a{2001}", "invalid repeat count: `{2001}`"), ("a\\", "trailing backslash at end of expression: ``"),
        ("(?z)", "invalid or unsupported Perl syntax: `(?z`"), ("[z-a]", "invalid character class range: `z-a`"),
    ],
)  # fmt: skip
def test_a_pattern_that_is_none_is_told_in_go_words(pattern: str, wrong: str) -> None:
    with pytest.raises(EvaluationError) as refused:
        compiled(pattern)
    assert str(refused.value) == f"error parsing regexp: {wrong}"


def test_a_pattern_that_backtracking_engines_choke_on_costs_no_time() -> None:
    assert _value("'" + "a" * 200 + "!'.matches('^(a+)+$')") is False


@pytest.mark.parametrize("expression", ["lists.range(9000000).size() > 0", "lists.range(1000).sort().size() > 0",
                                        "lists.range(1000).sortBy(n, -n).size() > 0"])  # fmt: skip
def test_lists_cost_what_they_hold(expression: str) -> None:
    with pytest.raises(BudgetExceeded):
        _value(expression)
    assert cel.cost_max(cel.compile(expression, Declarations()).tree) > 1e6


def test_an_authorizer_is_asked_what_the_expression_says() -> None:
    asked: list[Question] = []

    def ask(question: Question) -> Decision:
        asked.append(question)
        return Decision(allowed=question.verb == "get", reason="because")

    declared = Declarations(
        variables={
            "authorizer": Authorizer.type,
            "authorizer.requestResource": Type("kubernetes.authorization.ResourceCheck"),
            "x": DYN,
        }
    )
    values = {"authorizer": Authorizer(ask), "authorizer.requestResource": Authorizer(ask, Question(resource="pods"))}
    program = cel.compile(
        "authorizer.serviceAccount('ns', 'me').group('apps').resource('deployments').namespace('a').name('b')"
        ".check('get').allowed() && !authorizer.path('/healthz').check('post').allowed() && "
        "authorizer.requestResource.check('get').reason() == 'because'",
        declared,
    )
    assert program.evaluate(values, Budget(1e7), cost_max=1e7) is True
    assert asked == [
        Question(
            verb="get", group="apps", resource="deployments", namespace="a", name="b", service_account=("ns", "me")
        ),
        Question(verb="post", path="/healthz"),
        Question(verb="get", resource="pods"),
    ]
