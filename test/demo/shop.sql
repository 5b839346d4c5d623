CREATE TABLE users (
  id         BIGINT        NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name       VARCHAR(40)   NOT NULL,
  email      VARCHAR(100),
  balance    DECIMAL(10,2) NOT NULL DEFAULT 0.00,
  created_at DATETIME      NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE products (
  sku   VARCHAR(20)  NOT NULL PRIMARY KEY,
  title VARCHAR(80)  NOT NULL,
  price DECIMAL(8,2) NOT NULL,
  stock INT UNSIGNED NOT NULL DEFAULT 0
);
CREATE TABLE orders (
  user_id   BIGINT      NOT NULL,
  number    INT         NOT NULL,
  sku       VARCHAR(20) NOT NULL,
  quantity  INT         NOT NULL DEFAULT 1,
  note      TEXT,
  PRIMARY KEY (user_id, number)
);
INSERT INTO users (id, name, email, balance, created_at) VALUES
  (1,  'Grace Hopper',  'grace@example.com', 1952.00, '2024-01-09 08:15:00'),
  (2,  'Alan Turing',   NULL,                  19.36, '2024-02-29 12:00:00'),
  (42, 'Ada Lovelace',  'ada@example.com',    100.50, '2024-03-01 09:30:00');
INSERT INTO products (sku, title, price, stock) VALUES
  ('card-deck', 'Punched cards, box of 100', 4.20, 1000),
  ('engine',    'Analytical engine',     17000.00,    1),
  ('moth',      'Moth, in a log book',       0.99,    1);
INSERT INTO orders (user_id, number, sku, quantity, note) VALUES
  (42, 1, 'card-deck', 12, 'for the Bernoulli numbers'),
  (42, 2, 'engine',     1, NULL),
  (1,  1, 'moth',       1, 'first actual case');
