package config

import (
	"fmt"
	"io"
	"strings"
)

// hidden is what Print writes in place of a value that may have a password in it: a comment, which no reader of TOML takes
// for a value.
const hidden = "# %s is not shown: it may have a password in it # %s\n"

// Print writes the whole configuration as a TOML file that gives the same one again, but for each auth.dsn that is set:
// it is hidden. A comment at the end of each line says where its value came from.
func (c *Config) Print(w io.Writer) error {
	var b strings.Builder
	in := ""
	for _, k := range keys {
		table, name := k.table()
		if table != in {
			fmt.Fprintf(&b, "\n[%s]\n", table)
			in = table
		}
		fmt.Fprintf(&b, "%s = %s # %s\n", name, k.show(c), c.Source(k.name))
	}
	for _, a := range c.Backends() {
		fmt.Fprintf(&b, "\n[[%s]]\n", authTable)
		for _, k := range authKeysOf(a.Kind) {
			if k.name == "dsn" && a.DSN != "" {
				fmt.Fprintf(&b, hidden, k.name, a.Source(k.name))
				continue
			}
			fmt.Fprintf(&b, "%s = %s # %s\n", k.name, k.show(&a), a.Source(k.name))
		}
	}
	_, err := io.WriteString(w, b.String())
	if err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	return nil
}
