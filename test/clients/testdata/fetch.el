;;; fetch.el --- fetch mail with pop3.el  -*- lexical-binding: t -*-
;; Variables of the environment: POP_PORT POP_USER POP_PASSWORD POP_HOME POP_MODE (keep or delete).
;; And POP_TLS (plain, stls or implicit; empty: what pop3.el does by itself), POP_MECHANISM (PASS or APOP),
;; POP_CA (a file).
;; Each message goes to POP_HOME/out/NUMBER, where pop3.el would put it between its neighbours in one
;; file, with a "From " line before it; POP_HOME/uidl is pop3.el's own record of unique-ids.
(require 'pop3)
(require 'nsm)
;; A batch run cannot answer the question whether a connection without TLS will do. It will.
(advice-add 'nsm-check-plain-connection :override (lambda (process &rest _) process))
(setq gnutls-trustfiles (list (getenv "POP_CA"))
      gnutls-verify-error t)
;; Of a self-made certificate Emacs asks even if it is among the trustfiles. GnuTLS has checked it by then.
(advice-add 'nsm-query :override #'always)
(make-directory user-emacs-directory t) ; where Emacs keeps the certificates that it has seen
(let* ((home (getenv "POP_HOME"))
       (count 0)
       (pop3-mailhost "127.0.0.1")
       (pop3-port (string-to-number (getenv "POP_PORT")))
       (pop3-stream-type (cdr (assoc (getenv "POP_TLS") '(("plain" . plain) ("stls" . starttls) ("implicit" . ssl)))))
       (pop3-authentication-scheme (if (equal (getenv "POP_MECHANISM") "APOP") 'apop 'pass))
       (pop3-maildrop (getenv "POP_USER"))
       (pop3-password (getenv "POP_PASSWORD"))
       (pop3-leave-mail-on-server (equal (getenv "POP_MODE") "keep"))
       (pop3-uidl-file (expand-file-name "uidl" home)))
  (advice-add 'pop3-munge-message-separator :override
              (lambda (start end)
                (let ((coding-system-for-write 'binary))
                  (setq count (1+ count))
                  (write-region start end (format "%s/out/%06d" home count) nil 'quiet))))
  (pop3-movemail (expand-file-name "spool" home)))
