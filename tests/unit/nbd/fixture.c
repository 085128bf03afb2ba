/* SPDX-License-Identifier: MIT */
/* fixture.c - see fixture.h. */
#include "fixture.h"

#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

const struct fake_options all = { .size = FAKE_MAX, .flags = FAKE_ALL };
char uri[128];

static char dir[] = "/tmp/test-nbd.XXXXXX";

int set_up(void **state)
{
	char path[64];

	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/test-nbd.XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/socket", dir);
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", path);
	host_said[0] = 0;
	fake_start(path, &all);
	return 0;
}

int tear_down(void **state)
{
	(void)state;
	fake_stop(false);
	return rmdir(dir);
}

/* Who is killed does not say good-bye. */
int __real_nbd_aio_disconnect(struct nbd_handle *h, uint32_t flags);
int __wrap_nbd_aio_disconnect(struct nbd_handle *h, uint32_t flags);

int __wrap_nbd_aio_disconnect(struct nbd_handle *h, uint32_t flags)
{
	return host_dying ? 0 : __real_nbd_aio_disconnect(h, flags);
}
