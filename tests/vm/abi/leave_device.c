/* SPDX-License-Identifier: MIT */
/* leave_device.c - add a device with buffers registered, and go; prints its number. */
#include <stdio.h>
#include <sys/mman.h>

#include "abi_server.h"

#define NR_BUFFERS 4
#define BUFFER_BYTES 65536UL

int main(void)
{
	struct abi_server s;
	char *p = mmap(NULL, NR_BUFFERS * BUFFER_BYTES, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED ||
	    abi_add(&s, UBLK_F_USER_COPY | UBLK_F_CMD_IOCTL_ENCODE | UBLK_F_SHMEM_ZC))
		return 1;
	for (int i = 0; i < NR_BUFFERS; i++)
		if (abi_reg(&s, p + i * BUFFER_BYTES, BUFFER_BYTES, 0) != i)
			return 1;
	printf("%u\n", s.device);
	return 0;
}
