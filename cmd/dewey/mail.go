package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"dewey/auth"
	"dewey/config"
	"dewey/lmtp"
	"dewey/maildrop"
	"dewey/recipients"
)

// openRecipients makes what knows whose an address is, of the users that also log in.
func openRecipients(c *config.Config, users auth.Recipients, log *slog.Logger) (*recipients.Resolver, error) {
	r, err := recipients.New(users, rules(c), c.AliasesFile(), log)
	if err != nil {
		return nil, err //nolint:wrapcheck // names the file and the line of each error
	}
	return r, nil
}

func rules(c *config.Config) recipients.Rules {
	return recipients.Rules{Order: c.Recipients.Rules, Delimiter: c.Recipients.Delimiter, Domains: c.Recipients.Domains}
}

// resolve puts a Resolver's answers into LMTP's words.
func resolve(r *recipients.Resolver) func(context.Context, string) ([]maildrop.Owner, error) {
	return func(ctx context.Context, address string) ([]maildrop.Owner, error) {
		owners, err := r.Resolve(ctx, address)
		if errors.Is(err, recipients.ErrUnknown) {
			err = lmtp.ErrUnknown
		}
		return owners, err //nolint:wrapcheck // it says where it comes from
	}
}

// maxDataTimeout is RFC 5321 section 4.5.3.2.5's three minutes, with a wide margin.
const maxDataTimeout = 10 * time.Minute

// mailSettings turns the configuration into LMTP's words.
func mailSettings(c *config.Config) lmtp.Settings {
	return lmtp.Settings{
		Hostname:           c.Hostname,
		MaxSize:            c.LMTP.MaxSize,
		MaxRecipients:      c.LMTP.MaxRecipients,
		MaxConnections:     c.LMTP.MaxConnections,
		Timeout:            c.LMTP.Timeout,
		DataTimeout:        min(c.LMTP.Timeout, maxDataTimeout),
		OverQuotaTemporary: c.LMTP.OverQuota == config.OverQuotaDefer,
	}
}

// maildirOf says where a user's Maildir is. That there is no such place for him needs a person.
func maildirOf(c *config.Config) func(maildrop.Owner) (string, error) {
	return func(o maildrop.Owner) (string, error) {
		p, err := c.MaildirPath(o)
		if err != nil {
			err = fmt.Errorf("%w: %w", maildrop.ErrDamaged, err)
		}
		return p, err
	}
}

// quotaOf is what holds for users of whom the users file says nothing else.
func quotaOf(c *config.Config) maildrop.Quota {
	return maildrop.Quota{Octets: c.Mail.QuotaOctets, Messages: int64(c.Mail.QuotaMessages)}
}

// lifeOf is the same of how long mail stays, and what of it sessions see.
func lifeOf(c *config.Config) maildrop.Life {
	return maildrop.Life{
		Retention:      c.Mail.Retention,
		Undelete:       c.Mail.Undelete,
		Deletion:       c.Mail.Deletion,
		Window:         c.Mail.Window,
		WindowMessages: int64(c.Mail.WindowMessages),
		Folders:        c.Mail.Folders,
	}
}
