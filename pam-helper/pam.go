package main

/*
#cgo LDFLAGS: -lpam -lcrypt
#define _GNU_SOURCE
#include <crypt.h>
#include <errno.h>
#include <pwd.h>
#include <security/pam_appl.h>
#include <shadow.h>
#include <stdlib.h>
#include <string.h>

struct talk {
	const char *password;
	int asked, refused;
};

// converse answers what a module asks: with the password where nothing is shown, and with nothing else.
static int converse(int n, const struct pam_message **asked, struct pam_response **answers, void *data) {
	struct talk *t = data;
	if (n <= 0 || n > PAM_MAX_NUM_MSG)
		return PAM_CONV_ERR;
	struct pam_response *r = calloc(n, sizeof *r);
	if (!r)
		return PAM_BUF_ERR;
	for (int i = 0; i < n; i++) {
		int style = asked[i]->msg_style;
		if (style == PAM_TEXT_INFO || style == PAM_ERROR_MSG)
			continue;
		if (style == PAM_PROMPT_ECHO_OFF && t->password && t->asked++ < 8 && (r[i].resp = strdup(t->password)))
			continue;
		t->refused = 1;
		for (int j = 0; j < i; j++)
			if (r[j].resp) {
				explicit_bzero(r[j].resp, strlen(r[j].resp));
				free(r[j].resp);
			}
		free(r);
		return PAM_CONV_ERR;
	}
	*answers = r;
	return PAM_SUCCESS;
}

// dewey holds back who fails: a worker that sleeps would keep others waiting.
static void no_delay(int status, unsigned usec, void *data) {}

struct outcome {
	int status, account, refused;
	char user[256];
};

// ask has one conversation; without a password it asks for the account alone.
static void ask(const char *service, const char *confdir, const char *user, const char *password, const char *address, struct outcome *o) {
	struct talk t = {.password = password};
	struct pam_conv conv = {converse, &t};
	pam_handle_t *h = NULL;
	const void *name = NULL;
	memset(o, 0, sizeof *o);
	o->status = *confdir ? pam_start_confdir(service, user, &conv, confdir, &h) : pam_start(service, user, &conv, &h);
	if (o->status != PAM_SUCCESS)
		return;
	if ((o->status = pam_set_item(h, PAM_FAIL_DELAY, (const void *)no_delay)) == PAM_SUCCESS &&
		(o->status = pam_set_item(h, PAM_TTY, "dewey")) == PAM_SUCCESS && *address)
		o->status = pam_set_item(h, PAM_RHOST, address);
	if (o->status == PAM_SUCCESS && password)
		o->status = pam_authenticate(h, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
	if (o->status == PAM_SUCCESS) {
		o->account = 1;
		o->status = pam_acct_mgmt(h, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
	}
	if (o->status == PAM_SUCCESS) {
		o->status = pam_get_item(h, PAM_USER, &name);
		if (o->status == PAM_SUCCESS && (!name || strlen(name) >= sizeof o->user))
			o->status = PAM_SYSTEM_ERR;
		else if (o->status == PAM_SUCCESS)
			strcpy(o->user, name);
	}
	o->refused = t.refused;
	pam_end(h, o->status);
}

// look_up is getpwnam(3). Its error is not 0 where the user databases could not tell. The home is to be freed.
static int look_up(const char *user, int *found, unsigned *uid, char **name, char **home) {
	size_t size = 4096;
	struct passwd p, *r = NULL;
	char *buffer = NULL;
	int err = ERANGE;
	for (; err == ERANGE && size <= 1 << 20; size *= 4) {
		free(buffer);
		if (!(buffer = malloc(size)))
			return ENOMEM;
		err = getpwnam_r(user, &p, buffer, size, &r);
	}
	*found = !err && r;
	if (*found) {
		*uid = p.pw_uid;
		*name = strdup(p.pw_name);
		*home = strdup(p.pw_dir ? p.pw_dir : "");
		if (!*name || !*home)
			err = ENOMEM;
	}
	free(buffer);
	return err;
}

// decoy runs hashes as pam_unix does for a wrong password: one to see whether the empty one would do, and one for what
// was given. They are like the first user's of /etc/shadow, or what passwd(1) would make.
static void decoy(const char *password) {
	static char setting[CRYPT_OUTPUT_SIZE];
	static struct crypt_data data;
	if (!*setting) {
		struct spwd *s;
		setspent();
		while (!*setting && (s = getspent()))
			if (s->sp_pwdp && *s->sp_pwdp == '$' && strlen(s->sp_pwdp) < sizeof setting)
				strcpy(setting, s->sp_pwdp);
		endspent();
		if (!*setting)
			crypt_gensalt_rn(NULL, 0, NULL, 0, setting, sizeof setting);
	}
	crypt_r("", setting, &data);
	crypt_r(password, setting, &data);
	explicit_bzero(&data, sizeof data);
}
*/
import "C"

import (
	"fmt"
	"strings"
	"syscall"
	"unsafe"
)

// Users with these numbers are services that systemd makes while they run, and nobody.
const (
	firstDynamicUID = 61184
	nobodyUID       = 65534
)

// cString returns a copy of a text and what frees it, with nothing left of it. PAM's texts end at a NUL: who has one in
// his is not asked about.
func cString(s string) (*C.char, func()) {
	c := C.CString(s)
	return c, func() {
		C.explicit_bzero(unsafe.Pointer(c), C.size_t(len(s)))
		C.free(unsafe.Pointer(c))
	}
}

// sane says that a name can be a user's, and that no module can take it for more than a name.
func sane(name string) bool {
	return name != "" && len(name) <= 255 && name != "." && name != ".." && !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '/' })
}

func known(name, home string) frame {
	if !sane(name) || len(home) > 1024 {
		return says(sayError, "PAM or getpwnam(3) gave the user a name or a home that can't be: %.300q", name)
	}
	return frame{kind: sayKnown, texts: []string{name, home}}
}

func says(kind byte, format string, args ...any) frame {
	return frame{kind: kind, texts: []string{fmt.Sprintf(format, args...)}}
}

// lookUp returns a user of the system, or why he is none: not known, or one that no person is. It says too whether
// getpwnam(3) lists the name at all.
func (o options) lookUp(user string) (a frame, listed bool) {
	c, free := cString(user)
	defer free()
	var found C.int
	var uid C.uint
	var name, home *C.char
	errno := C.look_up(c, &found, &uid, &name, &home)
	defer C.free(unsafe.Pointer(name))
	defer C.free(unsafe.Pointer(home))
	switch {
	case errno != 0:
		return says(sayError, "getpwnam(3) could not tell, by what /etc/nsswitch.conf has of passwd: %v", syscall.Errno(errno)), false
	case found == 0:
		return says(sayUnknown, "getpwnam(3) does not know the user"), false
	case uint(uid) < o.minUID || uid >= firstDynamicUID && uid <= nobodyUID:
		return says(sayUnknown, "the user number %d is the system's, or a service's", uid), true
	}
	return known(C.GoString(name), C.GoString(home)), true
}

// name looks a user up; if he is to log in, his account must be good too.
func (o options) name(user string, login bool) frame {
	if !o.system || !sane(user) {
		return says(sayUnknown, "not a user of the system")
	}
	a, _ := o.lookUp(user)
	if a.kind != sayKnown || !login {
		return a
	}
	return o.talk(a, true, nil, "")
}

// password proves a user. One of whom PAM is not asked runs a hash too, so that times tell little (trap 42).
func (o options) password(user, password, address string) frame {
	if !sane(user) {
		return says(sayUnknown, "no name of a user")
	}
	if strings.ContainsRune(password+address, 0) || password == "" || len(password) >= C.PAM_MAX_RESP_SIZE {
		return says(sayRejected, "a password that PAM can't have")
	}
	p, free := cString(password)
	defer free()
	a, listed := o.lookUp(user)
	if a.kind == sayUnknown && (o.system || listed) {
		C.decoy(p)
	} else if a.kind == sayUnknown {
		a = known(user, "") // a user of PAM's alone, perhaps
	}
	if a.kind != sayKnown {
		return a
	}
	return o.talk(a, listed, p, address)
}

// talk has a conversation about a user, whom getpwnam(3) lists or not, and returns what comes of it. No password: about his
// account alone.
func (o options) talk(a frame, listed bool, password *C.char, address string) frame {
	service, free := cString(o.service)
	defer free()
	confdir, free := cString(o.confdir)
	defer free()
	user, free := cString(a.texts[0])
	defer free()
	from, free := cString(address)
	defer free()
	var out C.struct_outcome
	C.ask(service, confdir, user, password, from, &out)
	if out.status == C.PAM_SUCCESS {
		return o.proven(C.GoString(&out.user[0]), a)
	}
	stage := "auth"
	if out.account != 0 {
		stage = "account"
	}
	kind, why := verdict(out.status, listed || out.account != 0), ""
	if out.refused != 0 {
		kind, why = sayError, "; the service asks for more than a password"
	}
	return says(kind, "%s: %s (%d)%s", stage, C.GoString(C.pam_strerror(nil, out.status)), int(out.status), why)
}

// proven returns the user whom PAM has let in, who may be another than was asked for.
func (o options) proven(name string, a frame) frame {
	if name == a.texts[0] {
		return a
	}
	b, listed := o.lookUp(name)
	switch {
	case b.kind == sayKnown || b.kind == sayError:
		return b
	case o.system || listed:
		return says(sayError, "PAM made the user %.300q, and: %s", name, b.texts[0])
	}
	return known(name, "")
}

// verdict says what a status of PAM means for a user who is known: to getpwnam(3), or by his password, which was right. What
// is not listed is a fault of the service or of the machine.
func verdict(status C.int, known bool) byte {
	switch status {
	case C.PAM_AUTH_ERR, C.PAM_PERM_DENIED, C.PAM_MAXTRIES, C.PAM_ACCT_EXPIRED, C.PAM_CRED_EXPIRED, C.PAM_NEW_AUTHTOK_REQD, C.PAM_AUTHTOK_EXPIRED:
		return sayRejected
	case C.PAM_USER_UNKNOWN:
		if known { // nobody else is to be asked about the name
			return sayRejected
		}
		return sayUnknown
	}
	return sayError
}
