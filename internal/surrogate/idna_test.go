package surrogate

import "testing"

// RFC 3492 section 7.1, in lower case. Not among them: samples with characters that no domain may
// have, and those that would need tables of normalization.
func TestPunycode(t *testing.T) {
	tests := []struct{ name, label, want string }{
		{"B Chinese", "他们为什么不说中文", "ihqwcrb4cv8a8dqg056pqjye"},
		{"C Chinese", "他們爲什麽不說中文", "ihqwctvzc91f659drss3x8bo0yb"},
		{"D Czech", "pročprostěnemluvíčesky", "proprostnemluvesky-uyb24dma41a"},
		{"E Hebrew", "למההםפשוטלאמדבריםעברית", "4dbcagdahymbxekheh6e0a7fei0b"},
		{"G Japanese", "なぜみんな日本語を話してくれないのか", "n8jok5ay5dzabd5bym9f0cm5685rrjetr6pdxa"},
		{
			"H Korean", "세계의모든사람들이한국어를이해한다면얼마나좋을까",
			"989aomsvi5e83db1d2a355cv1e0vak1dwrv93d5xbh15a0dt30a5jpsd879ccm6fea98c",
		},
		{"I Russian", "почемужеонинеговорятпорусски", "b1abfaaepdrnnbgefbadotcwatmq2g4l"},
		{"J Spanish", "porquénopuedensimplementehablarenespañol", "porqunopuedensimplementehablarenespaol-fmd56a"},
		{"L Japanese", "3年b組金八先生", "3b-ww4c5e180e575a65lsy2b"},
		{"O Japanese", "ひとつ屋根の下2", "2-u9tlzr9756bt3uc0v"},
		{"P Japanese", "majiでkoiする5秒前", "majikoi5-783gue6qz075azm5e"},
		{"Q Japanese", "パフィーdeルンバ", "de-jg4avhby1noc0d"},
		{"R Japanese", "そのスピードで", "d9juau41awczczp"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got, ok := punycode(test.label); !ok || got != test.want {
				t.Errorf("punycode(%q) = %q, %v, want %q", test.label, got, ok, test.want)
			}
		})
	}
}

func TestAsciiDomain(t *testing.T) {
	tests := []struct{ domain, want string }{
		{"example.com", "example.com"},
		{"BÜCHER.Example", "xn--bcher-kva.Example"},
		{"faß.de", "xn--fa-hia.de"}, // RFC 5892: ß is a letter of its own
		{"münchen.例え", "xn--mnchen-3ya.xn--r8jz45g"},
		{"", ""},
		{"a..b", ""},
		{"é.", ""},
		{"-é.x", ""},
		{"xn--é.x", ""},
		{"a_b.é", ""},
		{"u\u0308.x", ""},         // not NFC: it would be another domain
		{"\u212B.x", "xn--5ca.x"}, // ANGSTROM SIGN, whose lower case is å
		{"ﬁ.x", ""},               // a ligature, disallowed
		{"e\u200Dé.x", ""},        // a joiner
		{"क्षे.x", ""},            // marks
		{"é\x00.x", ""},
		{"[é]", ""},
		{"éééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééé.x", ""}, // over 63
	}
	for _, test := range tests {
		if got, ok := asciiDomain(test.domain); got != test.want && ok || ok != (test.want != "") {
			t.Errorf("asciiDomain(%q) = %q, %v, want %q", test.domain, got, ok, test.want)
		}
	}
}
