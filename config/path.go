package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"dewey/maildrop"
)

// ErrUnsafeName says that a user's name can't be made part of a path.
var ErrUnsafeName = errors.New("name can't be part of a path")

// A piece of a template is either text or a placeholder's name.
type piece struct {
	text, placeholder string
}

// pieces cuts a template. A brace has no other use than to enclose a placeholder.
func pieces(s string) ([]piece, *fault) {
	const right = "write placeholders as {name}, and no other brace"
	var list []piece
	whole := s
	for s != "" {
		i := strings.IndexAny(s, "{}")
		if i < 0 {
			return append(list, piece{text: s}), nil
		}
		if i > 0 {
			list = append(list, piece{text: s[:i]})
		}
		end := strings.IndexAny(s[i+1:], "{}")
		if s[i] == '}' || end < 0 || s[i+1+end] == '{' {
			return nil, faultf(right, "%s has a brace without its other one", quote(whole))
		}
		list = append(list, piece{placeholder: s[i+1 : i+1+end]})
		if end == 0 {
			return nil, faultf(right, "{} names no placeholder")
		}
		s = s[i+1+end+1:]
	}
	return list, nil
}

// template is a path with placeholders. {data} and {home} are whole paths: they can only begin one.
func template(known ...string) textual {
	example := "{" + strings.Join(known, "}/{") + "}"
	return textual{example, func(s string) *fault {
		if s == "" {
			return faultf("write a path, such as "+quoteTOML(example), "is empty")
		}
		list, f := pieces(s)
		if f != nil {
			return f
		}
		for i, p := range list {
			switch {
			case p.placeholder == "":
			case !slices.Contains(known, p.placeholder):
				right := "known here: {" + strings.Join(known, "}, {") + "}"
				if near := nearest(p.placeholder, known); near != "" {
					right = "did you mean {" + near + "}?"
				}
				return faultf(right, "there is no placeholder {%s}", strings.Trim(quote(p.placeholder), `"`))
			case i > 0 && (p.placeholder == "data" || p.placeholder == "home"):
				return faultf("put it at the beginning", "{%s} stands for a whole path", p.placeholder)
			}
		}
		return badPath(s)
	}}
}

// maildirPath is a template that gives every user a Maildir of his own.
var maildirPath = textual{"{data}/mail/{user}", func(s string) *fault {
	if f := template("data", "user", "local", "domain", "home").check(s); f != nil {
		return f
	}
	if !strings.Contains(s, "{user}") && !strings.Contains(s, "{local}") && !strings.Contains(s, "{home}") {
		return faultf(`name the user in it, as in "{data}/mail/{user}"`, "%s would be one Maildir for all users", quote(s))
	}
	return nil
}}

// optionalTemplate is a path that may begin with {data}, or nothing.
var optionalTemplate = textual{"/etc/dewey/aliases", func(s string) *fault {
	if s == "" {
		return nil
	}
	return template("data").check(s)
}}

// UsersFile returns users.file with {data} put in.
func (c *Config) UsersFile() string { return c.file(c.Users.File) }

// AliasesFile returns recipients.aliases with {data} put in; empty if there is none.
func (c *Config) AliasesFile() string {
	if c.Recipients.Aliases == "" {
		return ""
	}
	return c.file(c.Recipients.Aliases)
}

func (c *Config) file(template string) string {
	list, _ := pieces(template) // checked when it was read
	var b strings.Builder
	for _, p := range list {
		b.WriteString(p.text)
		if p.placeholder == "data" {
			b.WriteString(c.Data)
		}
	}
	return filepath.Clean(b.String())
}

// MaildirPath returns where an owner's Maildir is, as an absolute path: maildir.path with its
// placeholders put in. It returns ErrUnsafeName if a part of the name that is used is empty, begins
// with a dot, or has a slash or a control octet in it, and if {home} is used and not an absolute
// path: no name can lead out of the folder that maildir.path names, nor into another user's Maildir.
func (c *Config) MaildirPath(o maildrop.Owner) (string, error) {
	list, f := pieces(c.Maildir.Path)
	if f != nil {
		return "", fmt.Errorf("maildir.path: %s", f.wrong)
	}
	local, domain := o.Name, ""
	if i := strings.LastIndexByte(o.Name, '@'); i >= 0 {
		local, domain = o.Name[:i], o.Name[i+1:]
	}
	var b strings.Builder
	for _, p := range list {
		part, err := p.text, error(nil)
		switch p.placeholder {
		case "data":
			part = c.Data
		case "user":
			part, err = o.Name, safePart(o.Name)
		case "local":
			part, err = local, safePart(local)
		case "domain":
			part, err = domain, safePart(domain)
		case "home":
			part, err = o.Home, safeHome(o.Home)
		}
		if err != nil {
			return "", fmt.Errorf("{%s} in maildir.path, for user %s: %w", p.placeholder, quote(o.Name), err)
		}
		b.WriteString(part)
	}
	path, err := filepath.Abs(b.String())
	if err != nil {
		return "", fmt.Errorf("maildir.path: %w", err)
	}
	return path, nil
}

// safePart checks a part of a login name that becomes (a part of) one element of a path. A leading
// dot is refused for "." and "..", and because Maildir++ has its folders under such names.
func safePart(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%w: it is empty", ErrUnsafeName)
	case s[0] == '.':
		return fmt.Errorf("%w: it begins with a dot", ErrUnsafeName)
	case strings.ContainsRune(s, '/'):
		return fmt.Errorf("%w: it has a slash in it", ErrUnsafeName)
	case strings.ContainsFunc(s, isControl):
		return fmt.Errorf("%w: it has a control octet in it", ErrUnsafeName)
	}
	return nil
}

func safeHome(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%w: the user has no home", ErrUnsafeName)
	case !filepath.IsAbs(s):
		return fmt.Errorf("%w: home %s is not absolute", ErrUnsafeName, quote(s))
	case strings.ContainsFunc(s, isControl):
		return fmt.Errorf("%w: home has a control octet in it", ErrUnsafeName)
	}
	return nil
}
