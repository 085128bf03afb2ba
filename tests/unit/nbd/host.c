/* SPDX-License-Identifier: MIT */
/* host.c - see host.h. */
#undef NDEBUG
#include "host.h"

#include <assert.h>
#include <errno.h>
#include <libnbd.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define POLLS 64

const struct ublkzc_engine *engine;
struct ublkzc_target target;
struct ublkzc_queue queue;
char host_said[4096];

static struct pollfd polls[POLLS];
static unsigned int nr_polls;
static struct ublkzc_setting settings[4];
static char setting_text[4][64];
static char uri_text[256];
static int inherited = -1;
static struct task *by_tag[HOST_DEPTH];

static void host_complete(struct ublkzc_request *rq, int res)
{
	struct task *t = (struct task *)rq;

	assert(!t->done);
	t->done = true;
	t->res = res;
	by_tag[rq->tag] = NULL;
}

static int host_poll(struct ublkzc_queue *q, int fd, unsigned int events)
{
	assert(q == &queue && nr_polls < POLLS && fd >= 0);
	polls[nr_polls++] = (struct pollfd){ fd, (short)events, 0 };
	return 0;
}

/* From several threads. */
static void host_log(enum ublkzc_level level, const char *format, va_list args)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

	(void)level;
	pthread_mutex_lock(&lock);
	vsnprintf(host_said, sizeof(host_said), format, args);
	fprintf(stderr, "# %s\n", host_said);
	pthread_mutex_unlock(&lock);
}

static const struct ublkzc_host host = {
	.version = UBLKZC_ENGINE_VERSION,
	.size = sizeof(host),
	.complete = host_complete,
	.poll = host_poll,
	.log = host_log,
};

static void take_settings(va_list args)
{
	const char *word;

	target.nr_settings = 0;
	while ((word = va_arg(args, const char *))) {
		char *text = setting_text[target.nr_settings];
		char *value;

		snprintf(text, sizeof(setting_text[0]), "%s", word);
		value = strchr(text, '=');
		*value++ = 0;
		settings[target.nr_settings++] = (struct ublkzc_setting){ text, value };
	}
}

int host_open(const char *uri, ...)
{
	va_list args;
	int ret;

	snprintf(uri_text, sizeof(uri_text), "%s", uri);
	engine = ublkzc_module.engine;
	*ublkzc_module.host = &host;
	target = (struct ublkzc_target){
		.path = uri_text,
		.settings = settings,
		.nr_queues = 1,
		.depth = HOST_DEPTH,
		.max_io = HOST_MAX_IO,
		.fd = inherited,
	};
	va_start(args, uri);
	take_settings(args);
	va_end(args);
	ret = engine->open(&target);
	if (!ret && inherited >= 0)
		ret = engine->fence(&target);
	inherited = -1;
	if (ret) {
		engine->close(&target);
		return ret;
	}
	queue = (struct ublkzc_queue){ .target = &target };
	nr_polls = 0;
	assert(engine->queue_open(&queue) == 0);
	return 0;
}

/* Who is killed does not say good-bye. */
static bool dying;
int __real_nbd_aio_disconnect(struct nbd_handle *h, uint32_t flags);
int __wrap_nbd_aio_disconnect(struct nbd_handle *h, uint32_t flags);

int __wrap_nbd_aio_disconnect(struct nbd_handle *h, uint32_t flags)
{
	return dying ? 0 : __real_nbd_aio_disconnect(h, flags);
}

void host_die(void)
{
	inherited = dup(target.fd);
	dying = true;
	host_close();
	dying = false;
	memset(by_tag, 0, sizeof(by_tag));
}

void host_close(void)
{
	engine->queue_close(&queue);
	engine->close(&target);
	nr_polls = 0;
}

static void run_once(int ms)
{
	struct pollfd ready[POLLS];
	unsigned int nr = 0, left = 0;

	poll(polls, nr_polls, ms);
	for (unsigned int i = 0; i < nr_polls; i++)
		if (polls[i].revents)
			ready[nr++] = polls[i];
		else
			polls[left++] = polls[i];
	nr_polls = left;
	for (unsigned int i = 0; i < nr; i++)
		engine->ready(&queue, ready[i].fd,
			      ready[i].revents & POLLNVAL ? -EBADF : ready[i].revents);
}

static long long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

void run(int ms)
{
	long long end = now_ms() + ms;

	while (now_ms() < end)
		run_once(10);
}

void begin(struct task *t, enum ublkzc_op op, uint64_t offset, void *data, uint32_t len,
	   unsigned int nr)
{
	uint32_t tag = 0;

	while (by_tag[tag])
		assert(++tag < HOST_DEPTH);
	by_tag[tag] = t;
	*t = (struct task){ .rq = { .queue = &queue,
				    .op = op,
				    .tag = tag,
				    .offset = offset,
				    .len = len,
				    .iov = t->iov,
				    .nr_iov = data ? nr : 0 } };
	for (unsigned int i = 0; data && i < nr; i++) {
		uint32_t from = len / 512 * i / nr * 512, to = len / 512 * (i + 1) / nr * 512;

		t->iov[i] = (struct iovec){ (char *)data + from, to - from };
	}
	engine->submit(&t->rq);
}

bool await(struct task *t, unsigned int seconds)
{
	long long end = now_ms() + seconds * 1000LL;

	while (!t->done && now_ms() < end)
		run_once(10);
	return t->done;
}

int do_io(enum ublkzc_op op, uint64_t offset, void *data, uint32_t len)
{
	struct task t;

	begin(&t, op, offset, data, len, 1);
	assert(await(&t, 60));
	return t.res;
}
