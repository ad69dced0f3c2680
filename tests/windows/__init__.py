"""Dramatiq's windows: where stock Dramatiq 2.2 loses, repeats or leaves lying a message.

Each window, W1 to W31, has tests named after it: ``pytest tests/windows -k w09``. Those named
``…_stock_…`` run Dramatiq as it comes, on the same RabbitMQ, and see it happen.
`docs/delivery-guarantees.md` has the table. Some cannot occur here, and are tested for that reason:

W2, W5, W20  a retry is a delivery held, never a copy published; there is no ``Retries``
W9 to W16    no envelope is decoded: queue, actor and options are the consumer's constants
W21          there is no delay queue, so none to be left behind with stale tags
W26          nothing raises in a working thread: there is no ``TimeLimit``; statements have limits

One stays as it is: W22, that Dramatiq's master stops all processes when one dies. Nothing is lost,
the supervisor starts them again, and a service of one process each keeps the others at work.
"""
