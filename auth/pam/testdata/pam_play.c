// A module that does what its first argument says: ask what is shown, ask twice, crash, hang, fork, rename the user.
#define _GNU_SOURCE
#include <security/pam_ext.h>
#include <security/pam_modules.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int pam_sm_authenticate(pam_handle_t *h, int flags, int argc, const char **argv) {
	const char *what = argc ? argv[0] : "";
	char *answer = NULL;
	if (!strcmp(what, "shown"))
		return pam_prompt(h, PAM_PROMPT_ECHO_ON, &answer, "code: ") == PAM_SUCCESS ? PAM_SUCCESS : PAM_AUTH_ERR;
	if (!strcmp(what, "talk")) {
		pam_info(h, "welcome");
		pam_error(h, "beware");
		for (int i = 0; i < 2; i++)
			if (pam_prompt(h, PAM_PROMPT_ECHO_OFF, &answer, "%d: ", i) != PAM_SUCCESS || strcmp(answer, "a secret"))
				return PAM_AUTH_ERR;
		return PAM_SUCCESS;
	}
	if (!strcmp(what, "endless")) {
		while (pam_prompt(h, PAM_PROMPT_ECHO_OFF, &answer, "again: ") == PAM_SUCCESS)
			free(answer);
		return PAM_AUTH_ERR;
	}
	if (!strcmp(what, "crash"))
		*(volatile int *)16 = 0;
	if (!strcmp(what, "spin")) {
		sigset_t all;
		sigfillset(&all);
		sigprocmask(SIG_BLOCK, &all, NULL);
		for (;;) {
		}
	}
	if (!strcmp(what, "exit"))
		exit(0);
	if (!strcmp(what, "delay"))
		pam_fail_delay(h, 30000000);
	if (!strcmp(what, "delay"))
		return PAM_AUTH_ERR;
	if (!strcmp(what, "rename"))
		return pam_set_item(h, PAM_USER, argv[1]);
	if (!strcmp(what, "newline"))
		return pam_set_item(h, PAM_USER, "a\nb");
	if (!strcmp(what, "rhost")) {
		const void *from = NULL;
		return pam_get_item(h, PAM_RHOST, &from) == PAM_SUCCESS && from && !strcmp(from, argv[1]) ? PAM_SUCCESS : PAM_AUTH_ERR;
	}
	return PAM_SYSTEM_ERR;
}

int pam_sm_setcred(pam_handle_t *h, int flags, int argc, const char **argv) { return PAM_SUCCESS; }
