/* SPDX-License-Identifier: MIT */
/*
 * register_loop.c - register and unregister 64 MiB with a device, over and over, until SIGTERM.
 *
 * Prints how often.  The memory is the program's own and no request is ever in it.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/vm/abi/abi_server.h"

#define BYTES (64UL << 20)

static volatile sig_atomic_t stop;

static void on_term(int sig)
{
	(void)sig;
	stop = 1;
}

int main(int argc, char **argv)
{
	struct abi_server s = { .device = argc > 1 ? (unsigned int)atoi(argv[1]) : 0 };
	const struct sigaction action = { .sa_handler = on_term };
	unsigned long rounds = 0;
	char *p;

	if (argc != 2) {
		fprintf(stderr, "usage: register_loop DEVICE-NUMBER\n");
		return 2;
	}
	p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1,
		 0);
	if (p == MAP_FAILED || ctrl_open(&s.ctrl))
		return 1;
	sigaction(SIGTERM, &action, NULL);
	while (!stop) {
		int index = abi_reg(&s, p, BYTES, 0);
		int ret = index < 0 ? index : abi_unreg(&s, (unsigned int)index);

		if (ret) {
			fprintf(stderr, "register_loop: %s: %s\n", index < 0 ? "register" : "unregister",
				strerror(-ret));
			return 1;
		}
		rounds++;
	}
	printf("%lu\n", rounds);
	return 0;
}
