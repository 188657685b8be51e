package config

import (
	"fmt"
	"io"
	"strings"
)

// Print writes the whole configuration as a TOML file that gives the same one again. A comment at
// the end of each line says where its value came from.
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
			fmt.Fprintf(&b, "%s = %s # %s\n", k.name, k.show(&a), a.Source(k.name))
		}
	}
	_, err := io.WriteString(w, b.String())
	if err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	return nil
}
