package pop3server

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"dewey/internal/popwire"
)

// DefaultLanguage is the tag of the language in which a session begins: English in ASCII, the one
// that RFC 2277 names for those who have not chosen.
const DefaultLanguage = "i-default"

// A language is one in which a client can have the texts of replies. RFC 6856 section 3.
type language struct {
	tag   string
	name  string            // in the language itself
	texts map[string]string // by the text in DefaultLanguage
}

// languages is in the order in which LANG lists them.
var languages = []*language{
	{DefaultLanguage, "Default (English)", nil},
	{"en", "English", nil},
	{"de", "Deutsch", german},
	{"es", "Español", spanish},
	{"fr", "Français", french},
}

// Languages returns the tags of the languages that a client can choose from with LANG, and an
// administrator for Settings.Language.
func Languages() []string {
	var tags []string
	for _, l := range languages {
		tags = append(tags, l.tag)
	}
	return tags
}

// say returns a text in the language; nil is DefaultLanguage.
func (l *language) say(text string, args ...any) string {
	if l != nil {
		if t, ok := l.texts[text]; ok {
			text = t
		}
	}
	if len(args) == 0 {
		return text
	}
	return fmt.Sprintf(text, args...)
}

// findLanguage looks for the language that a basic language range asks for: itself, else the first of
// which it is a prefix, else that of the range without its last subtag. RFC 6856 section 3.2.
func findLanguage(wanted string) *language {
	if slices.Contains(strings.Split(wanted, "-"), "") {
		return nil // no language range: RFC 4647 section 2.1
	}
	for wanted != "" {
		for _, l := range languages {
			tag := l.tag + "-"
			if len(tag) > len(wanted) && strings.EqualFold(tag[:len(wanted)], wanted) && tag[len(wanted)] == '-' {
				return l
			}
		}
		wanted = wanted[:max(strings.LastIndexByte(wanted, '-'), 0)]
	}
	return nil
}

// setLang lists the languages or changes to one. What "*" stands for is the same for all users, so
// that it tells nothing about one. RFC 6856 sections 3.2 and 7.
func (s *session) setLang(_ context.Context, args []string) (response, error) {
	if len(args) == 0 {
		return response{text: s.lang.say("language list follows"), body: func(w *popwire.Writer) error {
			for _, l := range languages {
				if err := w.Line(l.tag + " " + l.name); err != nil {
					return err
				}
			}
			return nil
		}}, nil
	}
	wanted := args[0]
	if wanted == "*" {
		wanted = s.settings.Language
	}
	l := findLanguage(wanted)
	if l == nil {
		return response{}, errLanguage
	}
	s.lang = l
	return response{text: l.tag + " " + l.say("language changed")}, nil
}
