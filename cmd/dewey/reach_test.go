package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a confined process can reach: a reload must not ask for more.
func TestReach(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"data/users", "other"} {
		if err := os.MkdirAll(filepath.Join(folder, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(folder, name) }
	if err := os.Symlink(at("data"), at("link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(at("other"), at("data/out")); err != nil {
		t.Fatal(err)
	}
	all := reach{read: existing(at("data"), at("gone")), ports: []uint16{389}}
	for name, c := range map[string]struct {
		r    reach
		want string // of the error; empty: it is within
	}{
		"nothing":                    {reach{}, ""},
		"the port":                   {reach{ports: []uint16{389}}, ""},
		"another port":               {reach{ports: []uint16{389, 636}}, "port 636"},
		"all ports":                  {reach{any: true}, "all ports"},
		"names":                      {reach{names: true}, "look up hosts"},
		"the folder":                 {reach{read: []string{at("data")}}, ""},
		"below it":                   {reach{read: []string{at("data/users")}}, ""},
		"by a link":                  {reach{read: []string{at("link/users")}}, ""},
		"out by a link":              {reach{read: []string{at("data/out")}}, at("other")},
		"another folder":             {reach{read: []string{at("data"), at("other")}}, at("other")},
		"above it":                   {reach{read: []string{folder}}, folder},
		"a name that begins like it": {reach{read: []string{at("data/users"), at("database")}}, ""}, // not there
	} {
		err := c.r.within(all)
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !strings.HasSuffix(err.Error(), ": restart dewey")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"database", "gone"} { // made since
		if err := os.MkdirAll(at(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := (reach{read: []string{at(name)}}).within(all); err == nil {
			t.Errorf("%s was not there when the process was confined", name)
		}
	}
	if err := (reach{any: true, ports: []uint16{1}}).within(reach{any: true}); err != nil {
		t.Error(err)
	}
	if err := (reach{read: []string{"/etc/ssl"}}).within(reach{read: []string{"/"}}); err != nil {
		t.Error(err)
	}
	var r reach
	r.url("ldaps://ldap.example.org") // a long answer of the name server comes by TCP
	if err := (reach{names: true, ports: []uint16{53, 636}}).within(r); err != nil {
		t.Error(err)
	}
}
