/* SPDX-License-Identifier: MIT */
/* host.c - see host.h. */
#undef NDEBUG
#include "host.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define POLLS 64
#define SETTINGS 8

const struct ublkzc_engine *engine;
struct ublkzc_target target;
struct ublkzc_queue queue;
char host_said[4096];
bool host_read_only, host_dying;

static struct pollfd polls[POLLS];
static unsigned int nr_polls;
static struct ublkzc_setting settings[SETTINGS];
static char setting_text[SETTINGS][256];
static char argument_text[1024];
static bool succeeds;
static int inherited = -1;
/* What completions on other threads change. */
static pthread_mutex_t tasks_lock = PTHREAD_MUTEX_INITIALIZER;
static struct task *by_tag[HOST_DEPTH];

static void host_complete(struct ublkzc_request *rq, int res)
{
	struct task *t = (struct task *)rq;

	pthread_mutex_lock(&tasks_lock);
	assert(!t->done);
	t->res = res;
	by_tag[rq->tag] = NULL;
	t->done = true;
	pthread_mutex_unlock(&tasks_lock);
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

		assert(target.nr_settings < SETTINGS);
		snprintf(text, sizeof(setting_text[0]), "%s", word);
		value = strchr(text, '=');
		*value++ = 0;
		settings[target.nr_settings++] = (struct ublkzc_setting){ text, value };
	}
}

void host_succeed(int fd)
{
	succeeds = true;
	inherited = fd;
}

int host_open(const char *argument, ...)
{
	va_list args;
	int ret;

	snprintf(argument_text, sizeof(argument_text), "%s", argument);
	engine = ublkzc_module.engine;
	*ublkzc_module.host = &host;
	target = (struct ublkzc_target){
		.path = argument_text,
		.settings = settings,
		.nr_queues = 1,
		.depth = HOST_DEPTH,
		.max_io = HOST_MAX_IO,
		.read_only = host_read_only,
		.fd = inherited,
	};
	va_start(args, argument);
	take_settings(args);
	va_end(args);
	ret = engine->open(&target);
	if (!ret && succeeds)
		ret = engine->fence(&target);
	succeeds = false;
	inherited = -1;
	if (ret) {
		engine->close(&target);
		return ret;
	}
	queue = (struct ublkzc_queue){ .target = &target };
	nr_polls = 0;
	assert(!engine->queue_open || engine->queue_open(&queue) == 0);
	return 0;
}

void host_die(void)
{
	host_succeed(dup(target.fd));
	host_dying = true;
	host_close();
	host_dying = false;
	memset(by_tag, 0, sizeof(by_tag));
}

void host_close(void)
{
	if (engine->queue_close)
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

	pthread_mutex_lock(&tasks_lock);
	while (by_tag[tag])
		assert(++tag < HOST_DEPTH);
	by_tag[tag] = t;
	pthread_mutex_unlock(&tasks_lock);
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

static bool is_done(struct task *t)
{
	bool done;

	pthread_mutex_lock(&tasks_lock);
	done = t->done;
	pthread_mutex_unlock(&tasks_lock);
	return done;
}

bool await(struct task *t, unsigned int seconds)
{
	long long end = now_ms() + seconds * 1000LL;

	while (!is_done(t) && now_ms() < end)
		run_once(nr_polls ? 10 : 1);
	return is_done(t);
}

int do_io(enum ublkzc_op op, uint64_t offset, void *data, uint32_t len)
{
	struct task t;

	begin(&t, op, offset, data, len, 1);
	assert(await(&t, 60));
	return t.res;
}
