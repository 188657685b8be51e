package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"dewey/maildrop/message"
)

func (a *app) mailShow() *cobra.Command {
	var raw, crlf bool
	var folder folderFlag
	cmd := &cobra.Command{
		Use:   "show USER NUMBER-OR-UNIQUE-ID",
		Short: "Write a message to standard output",
		Long: "Write a message to standard output, as RETR sends it in UTF-8 mode, but with line ends LF. It is found by its\n" +
			"unique-id, or else by its number, both as dewey mail list shows them; numbers change with each session.\n\n" +
			`At a terminal, signs that it would act upon are written as \x1b, unless --raw is given. What goes to a file or a` + "\n" +
			"pipe is exact in any case.",
		Args: mailArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := folder.open(a, cmd, args[0])
			if err != nil {
				return err
			}
			look, err := m.look(context.Background())
			if err != nil {
				return err
			}
			n, err := findMessage(look.Messages(), args[1])
			if err != nil {
				return err
			}
			_, body, err := look.Retrieve(context.Background(), n)
			if err != nil {
				return fmt.Errorf("message %d: %w", n, err)
			}
			defer body.Close()
			if _, ok := widthOf(a.out); ok && !raw {
				return showVisible(a.out, body)
			}
			return copyMessage(a.out, body, crlf)
		},
	}
	cmd.Flags().BoolVar(&raw, "raw", false, "at a terminal too, write all octets as they are")
	cmd.Flags().BoolVar(&crlf, "crlf", false, "write line ends as RETR does, CRLF")
	folder.add(cmd)
	return cmd
}

func copyMessage(out io.Writer, body io.Reader, crlf bool) error {
	if crlf {
		_, err := io.Copy(out, body)
		return err //nolint:wrapcheck // says what
	}
	w := message.NewWriter(out)
	if _, err := io.Copy(w, body); err != nil {
		w.Discard()
		return err //nolint:wrapcheck // says what
	}
	_, err := w.Close()
	return err //nolint:wrapcheck // says what
}

// showVisible writes a message to a terminal. Line ends are LF.
func showVisible(out io.Writer, body io.Reader) error {
	r, w := bufio.NewReaderSize(body, 64<<10), bufio.NewWriterSize(out, 64<<10)
	for {
		c, size, err := r.ReadRune()
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			return errors.Join(err, w.Flush())
		}
		switch {
		case c == utf8.RuneError && size == 1:
			_ = r.UnreadRune()
			octet, _ := r.ReadByte()
			fmt.Fprintf(w, `\x%02x`, octet)
		case c == '\n' || c == '\t':
			_, _ = w.WriteRune(c) // Flush tells its error
		case c == '\r':
			if next, err := r.Peek(1); err != nil || next[0] != '\n' {
				_, _ = w.WriteString(visible("\r"))
			}
		default:
			_, _ = w.WriteString(visible(string(c)))
		}
	}
}
